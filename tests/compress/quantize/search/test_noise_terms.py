"""The parts of the noise: what each rounding does alone, and what ends it."""

import math
from dataclasses import replace

import pytest
import torch

from edgedl.compress.encodings.emit import emit
from edgedl.compress.encodings.encodings import per_channel, quantize_weight, weight_scales
from edgedl.compress.encodings.quantized_layers import quantized_layers
from edgedl.compress.graph.edit import copy_graph, set_tensor
from edgedl.compress.graph.run import run_graph
from edgedl.compress.quantize.search.damage import labelled_batches
from edgedl.compress.quantize.search.damage_budget import DamageBudget
from edgedl.compress.quantize.search.float_layers import keep_float, measure_damage
from edgedl.compress.quantize.search.noise_terms import Roundings, measure_noise_terms
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.state import ModelState
from edgedl.compress.targets.named import ORT

SAMPLES = 64


@pytest.fixture(scope="module")
def state(float_state: ModelState) -> ModelState:
    return QuantizeStatic().apply(float_state)


@pytest.fixture(scope="module")
def roundings(state: ModelState) -> Roundings:
    return measure_noise_terms(state.graph, state.quantized, state.subject.task, SAMPLES)


def test_a_weight_alone_is_a_float_graph_with_that_weight_rounded(
    state: ModelState, roundings: Roundings
):
    (batch,) = labelled_batches(state.subject.task, SAMPLES, SAMPLES)
    (exact,) = run_graph(state.graph, batch.inputs)
    weights = state.quantized.encodings.weights
    checked = 0
    for term in roundings.terms:
        if term.part == "tensor":
            continue
        (name,) = term.needs
        node = next(n for n in state.graph.graph.nodes if n.name == name)
        path = node.args[1].target
        graph = copy_graph(state.graph)
        weight, scales = getattr_path(graph, path), weight_scales(weights[path])
        step = per_channel(scales, 0, weight.ndim)
        set_tensor(graph, path, quantize_weight(weight, scales, 0) * step)
        (found,) = run_graph(graph, batch.inputs)
        noise = float(((found.astype(float) - exact) ** 2).sum())
        # Its bias is not rounded to a grid as long as its input is float.
        assert term.damage.noise == pytest.approx(noise, rel=0.05)
        checked += 1
    assert checked == 5


def getattr_path(graph, path):
    value = graph
    for step in path.split("."):
        value = getattr(value, step)
    return value.detach()


def test_the_parts_add_up_nearly(roundings: Roundings):
    ratio_db = 10 * math.log10(roundings.predicted_noise / roundings.int8.noise)
    assert abs(ratio_db) < 1.5


def rounded_in_the_file(state: ModelState, float_nodes: frozenset[str]) -> set[str]:
    """Return the tensors and weights that the emitted graph rounds, by the nodes' names."""
    encodings = keep_float(state.quantized, float_nodes).encodings
    nodes = emit(state.graph, encodings, ORT).graph.nodes
    quantize = torch.ops.quantized_decomposed.quantize_per_tensor.default
    tensors = {n.args[0].name for n in nodes if n.target is quantize}
    weights = {n.name.removesuffix("_int8") for n in nodes if n.name.endswith("_weight_int8")}
    return tensors | weights


def test_a_rounding_ends_when_all_it_needs_is_float_and_not_before(
    state: ModelState, roundings: Roundings
):
    layers = {x.name: x for x in quantized_layers(state.graph, state.quantized.encodings)}
    for term in roundings.terms:
        if term.part == "weight":
            names = {f"{next(iter(term.needs))}_weight"}
        else:
            names = {node.name for node in layers[term.layer].values}
        assert not names & rounded_in_the_file(state, term.needs), term
        for one in term.needs:
            assert names & rounded_in_the_file(state, term.needs - {one}), (term, one)


def test_predictions_are_shares_of_what_was_measured(state: ModelState, roundings: Roundings):
    assert roundings.predicted_sqnr_db(()) == pytest.approx(roundings.int8.sqnr_db)
    everything = frozenset().union(*(t.needs for t in roundings.terms))
    assert roundings.predicted_sqnr_db(everything) == math.inf
    kept = keep_float(state.quantized, {"linear"})
    real = measure_damage(state.graph, kept, state.subject.task, SAMPLES, 16)
    assert real.noise < roundings.int8.noise
    assert roundings.predicted_sqnr_db({"linear"}) == pytest.approx(real.sqnr_db, abs=1.5)


def test_all_layers_in_float_is_the_float_network(state: ModelState, roundings: Roundings):
    everything = frozenset().union(*(t.needs for t in roundings.terms))
    task = state.subject.task
    found = measure_damage(state.graph, keep_float(state.quantized, everything), task, SAMPLES, 16)
    assert found.noise == 0


def test_a_budgets_parts_add_up_to_the_whole(roundings: Roundings):
    whole = roundings.int8
    for budget in (DamageBudget(), DamageBudget(30.0), DamageBudget(30.0, 0.1)):
        parts = budget.parts(roundings)
        sums = [sum(column) for column in zip(*(p.amounts for p in parts), strict=True)]
        assert sums == pytest.approx(list(budget.amounts(whole)))
    met = DamageBudget(whole.sqnr_db - 0.01, whole.loss * 1.01)
    assert met.excess(whole, whole) == 0
    missed = DamageBudget(whole.sqnr_db + 10 * math.log10(2))
    assert missed.excess(whole, whole) == pytest.approx(0.5)
    assert DamageBudget(max_loss=0.0).excess(whole, whole) == 1
    assert DamageBudget().excess(replace(whole, noise=0.0), whole) == 0
