"""Every layer's damage against the emitted graphs and plain arithmetic."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from edgedl.compress.encodings.emit import emit
from edgedl.compress.encodings.simulate import Simulation
from edgedl.compress.graph.run import run_graph
from edgedl.compress.quantize.search.damage import labelled_batches
from edgedl.compress.quantize.search.sensitivity import Sensitivity, measure_sensitivity
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.state import ModelState
from edgedl.compress.targets.named import ORT

SAMPLES = 48


@pytest.fixture(scope="module")
def state(float_state: ModelState) -> ModelState:
    return QuantizeStatic().apply(float_state)


@pytest.fixture(scope="module")
def found(state: ModelState) -> Sensitivity:
    return measure_sensitivity(state.graph, state.quantized, state.subject.task, SAMPLES, 20)


def first_samples(state: ModelState) -> tuple[np.ndarray, np.ndarray]:
    (batch,) = labelled_batches(state.subject.task, SAMPLES, SAMPLES)
    return batch.inputs[0], batch.labels


def decibels(exact: np.ndarray, other: np.ndarray) -> float:
    exact, other = exact.astype(float), other.astype(float)
    return 10 * math.log10((exact**2).sum() / ((other - exact) ** 2).sum())


def test_the_whole_network(state: ModelState, found: Sensitivity):
    x, labels = first_samples(state)
    (exact,) = run_graph(state.graph, (x,))
    (int8,) = run_graph(emit(state.graph, state.quantized.encodings, ORT), (x,))
    assert found.samples == SAMPLES
    assert found.exact.sqnr_db == math.inf
    assert found.exact.loss == found.exact.flips == 0
    assert found.exact.score == pytest.approx((exact.argmax(1) == labels).mean())
    assert found.int8.sqnr_db == pytest.approx(decibels(exact, int8), abs=1e-3)
    assert found.int8.score == pytest.approx((int8.argmax(1) == labels).mean())


def test_a_layer_alone_and_all_but_it(state: ModelState, found: Sensitivity):
    x, _ = first_samples(state)
    (exact,) = run_graph(state.graph, (x,))
    simulation = Simulation(state.graph, state.quantized.encodings)
    everything = {node for s in found.layers for node in s.layer.nodes}
    for s in found.layers:
        (only,) = simulation(torch.tensor(x), active=s.layer.nodes)
        (all_but,) = simulation(torch.tensor(x), active=everything - s.layer.nodes)
        if s.only.noise:
            assert s.only.sqnr_db == pytest.approx(decibels(exact, only.numpy()), abs=1e-3)
        assert s.all_but.sqnr_db == pytest.approx(decibels(exact, all_but.numpy()), abs=1e-3)


def test_a_layer_kept_in_float_is_the_file_with_it_in_float(state: ModelState, found: Sensitivity):
    x, _ = first_samples(state)
    (exact,) = run_graph(state.graph, (x,))
    for s in found.layers:
        if s.layer.node is None:
            assert s.kept_float is None
            continue
        kept = replace(state.quantized.encodings, float_nodes=frozenset({s.layer.node.name}))
        (mixed,) = run_graph(emit(state.graph, kept, ORT), (x,))
        assert s.kept_float.sqnr_db == pytest.approx(decibels(exact, mixed), abs=1e-3)


def test_the_worst_layer_comes_first(found: Sensitivity):
    ratios = [s.only.sqnr_db for s in found.layers]
    assert ratios == sorted(ratios)
    assert max(s.only.noise for s in found.layers) < found.int8.noise
    assert {s.layer.name for s in found.layers} >= {"input", "stem", "depthwise", "fc"}


def test_batches_do_not_matter(state: ModelState, found: Sensitivity):
    again = measure_sensitivity(state.graph, state.quantized, state.subject.task, SAMPLES, 7)
    assert [s.layer.name for s in again.layers] == [s.layer.name for s in found.layers]
    for a, b in zip(found.layers, again.layers, strict=True):
        assert a.only.noise == pytest.approx(b.only.noise, rel=1e-3)


def test_one_sample_is_enough(state: ModelState):
    one = measure_sensitivity(state.graph, state.quantized, state.subject.task, 1)
    assert one.samples == 1
    assert math.isfinite(one.int8.sqnr_db)


def test_float_layers_are_left_out(state: ModelState):
    encodings = replace(state.quantized.encodings, float_nodes=frozenset({"linear"}))
    quantized = replace(state.quantized, encodings=encodings)
    some = measure_sensitivity(state.graph, quantized, state.subject.task, 4)
    assert "fc" not in {s.layer.name for s in some.layers}


def test_corrected_weights_count_against_the_float_networks(int8_state: ModelState):
    task = int8_state.subject.task
    found = measure_sensitivity(int8_state.graph, int8_state.quantized, task, SAMPLES)
    x, _ = first_samples(int8_state)
    (exact,) = run_graph(int8_state.graph, (x,))
    quantized = int8_state.quantized
    (int8,) = run_graph(emit(quantized.graph, quantized.encodings, ORT), (x,))
    assert found.int8.sqnr_db == pytest.approx(decibels(exact, int8), abs=1e-3)
    # Their weights lie on their grids already: the damage is to the float network's.
    assert all(s.only.noise > 0 for s in found.layers if s.layer.macs)
