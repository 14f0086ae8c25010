"""The stage that chooses float layers: what it keeps and writes down, when it keeps nothing."""

import math
from collections.abc import Mapping

import msgspec
import numpy as np
import pytest
import torch

from edgedl.compress.encodings.quantized_layers import quantized_layers
from edgedl.compress.encodings.simulate import Simulation
from edgedl.compress.latency.timing import Timings
from edgedl.compress.quantize.search.damage_budget import DamageBudget
from edgedl.compress.quantize.search.float_layers import keep_float, measure_damage, restore_weights
from edgedl.compress.quantize.search.float_search import Constraints, Finding, FloatSearch
from edgedl.compress.quantize.search.layer_cost import WHOLLY_FLOAT, FloatNodes
from edgedl.compress.quantize.search.mix_precision import MixPrecision
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.state import ModelState
from edgedl.runtime.bundle.manifest import HistoryEntry
from edgedl.runtime.errors import BadInputError

SAMPLES = 64


class PriceList:
    """Times as a device with fixed prices would give them; the search must obey any prices."""

    def __init__(self, prices: dict[str, float], otherwise: float, float32: float) -> None:
        self.prices, self.otherwise, self.float32 = prices, otherwise, float32
        self.timed: list[FloatNodes] = []

    def time(self, files: Mapping[str, FloatNodes]) -> Timings:
        self.timed += files.values()
        return Timings({name: np.full((5, 3), self._ns(f)) for name, f in files.items()})

    def _ns(self, file: FloatNodes) -> float:
        if file is WHOLLY_FLOAT:
            return 1000.0 * self.float32
        return 1000.0 * (1 + sum(self.prices.get(name, self.otherwise) for name in file))


def search(
    state: ModelState, timer: PriceList, budget: DamageBudget | None = None, **settings: float
) -> Finding:
    given = {"max_slowdown": 1.1, "max_layers": 3, "candidates": 6, **settings}
    constraints = Constraints(
        budget or DamageBudget(),
        samples=SAMPLES,
        batch_size=16,
        **given,  # type: ignore[arg-type]
    )
    return FloatSearch(state, constraints, timer).run()  # type: ignore[arg-type]


def damage_with(state: ModelState, *kept: str) -> float:
    network = keep_float(state.quantized, kept)
    return measure_damage(state.graph, network, state.subject.task, SAMPLES, 16).noise


def test_it_needs_a_quantized_network(float_state: ModelState) -> None:
    with pytest.raises(BadInputError, match="needs quantize_static before it"):
        MixPrecision().apply(float_state)


def test_a_budget_that_int8_meets_needs_no_timing(int8_state: ModelState) -> None:
    timer = PriceList({}, 0.0, 2.0)
    found = search(int8_state, timer, DamageBudget(min_sqnr_db=5.0, max_loss=1.0))
    assert found.kept == frozenset()
    assert found.network is int8_state.quantized
    assert found.reason == "the all-int8 network is within the budget"
    assert timer.timed == []


def test_the_cheapest_layer_that_meets_the_budget_is_kept(int8_state: ModelState) -> None:
    layers = quantized_layers(int8_state.graph, int8_state.quantized.encodings)
    names = [layer.node.name for layer in layers if layer.node is not None]
    whole = damage_with(int8_state)
    signal = measure_damage(
        int8_state.graph, int8_state.quantized, int8_state.subject.task, SAMPLES, 16
    ).signal
    left = {name: damage_with(int8_state, name) / whole for name in names}
    best = min(left, key=lambda n: left[n])
    # A little more than what the best single layer leaves.
    limit = DamageBudget(min_sqnr_db=10 * math.log10(signal / (whole * (left[best] + 0.02))))
    found = search(int8_state, PriceList({best: 0.05}, 0.5, 2.0), limit)
    assert found.kept == {best}
    assert found.damage.sqnr_db >= limit.min_sqnr_db
    assert found.slowdown.value == pytest.approx(1.05)
    assert found.of_float32.value == pytest.approx(1.05 / 2)
    assert found.predicted_sqnr_db == pytest.approx(found.damage.sqnr_db, abs=1.5)


def test_without_a_budget_less_noise_is_kept_within_the_slowdown(int8_state: ModelState) -> None:
    found = search(int8_state, PriceList({}, 0.04, 2.0), max_slowdown=1.09)
    assert 1 <= len(found.kept) <= 2
    assert found.damage.noise < found.int8.noise
    assert found.reason == "within the budget"


def test_a_layer_that_is_faster_in_float_pays_for_another(int8_state: ModelState) -> None:
    alone = search(int8_state, PriceList({}, 0.15, 2.0))
    assert alone.kept == frozenset()
    found = search(int8_state, PriceList({"linear": -0.2}, 0.15, 2.0))
    assert "linear" in found.kept
    assert len(found.kept) == 2
    assert found.slowdown.value == pytest.approx(0.95)


def test_what_is_slower_than_float32_is_not_kept(int8_state: ModelState) -> None:
    found = search(int8_state, PriceList({}, 0.01, 0.9))
    assert found.kept == frozenset()
    assert found.network is int8_state.quantized
    assert "of the float32 file's time" in found.reason


def test_prices_that_do_not_add_up_are_found_out(int8_state: ModelState) -> None:
    class Together(PriceList):
        def _ns(self, file: FloatNodes) -> float:
            several = file is not WHOLLY_FLOAT and len(file) > 1
            return super()._ns(file) * (1.3 if several else 1.0)

    found = search(int8_state, Together({}, 0.01, 2.0), max_layers=2)
    assert len(found.kept) < 2
    assert found.slowdown is None or found.slowdown.value <= 1.1


@pytest.mark.parametrize("price", [0.01, 0.5])
def test_a_budget_nobody_can_meet_is_no_error(int8_state: ModelState, price: float) -> None:
    found = search(int8_state, PriceList({}, price, 2.0), DamageBudget(min_sqnr_db=200.0))
    assert "the budget is missed" in found.reason
    assert bool(found.kept) == (price < 0.1)


def test_float_layers_get_back_the_float_networks_weights(int8_state: ModelState) -> None:
    corrected = int8_state.quantized
    mixed = keep_float(corrected, {"linear"})
    restored = restore_weights(int8_state.graph, mixed, {"linear"})
    linear, original = (
        next(n for n in g.graph.nodes if n.name == "linear")
        for g in (restored.graph, int8_state.graph)
    )
    for index in (1, 2):
        ours = restored.graph.get_buffer(linear.args[index].target)
        path = original.args[index].target
        assert torch.equal(ours, int8_state.graph.get_parameter(path))
    assert restored.encodings.weights.keys() < mixed.encodings.weights.keys()
    assert len(dict(corrected.graph.named_buffers())) == len(dict(mixed.graph.named_buffers()))
    x = torch.tensor(next(iter(int8_state.subject.task.batches("test", 50))).inputs[0])
    before, after = (Simulation(n.graph, n.encodings) for n in (mixed, restored))
    assert not torch.equal(before(x)[0], after(x)[0])


def test_the_better_weights_are_taken(int8_state: ModelState) -> None:
    found = search(int8_state, PriceList({}, 0.0, 2.0))
    task, kept = int8_state.subject.task, found.kept
    mixed = keep_float(int8_state.quantized, kept)
    noises = [
        measure_damage(int8_state.graph, network, task, SAMPLES, 16).noise
        for network in (mixed, restore_weights(int8_state.graph, mixed, kept))
    ]
    assert found.damage.noise == pytest.approx(min(noises))
    assert found.restored == (noises[1] < noises[0])


def test_one_sample_and_a_budget_write_the_settings_down(int8_state: ModelState) -> None:
    stage = MixPrecision(samples=1, min_sqnr_db=1.0)
    state = stage.apply(int8_state)
    assert state.quantized is int8_state.quantized
    assert state.graph is int8_state.graph
    entry = state.history[-1]
    assert entry.stage == "mix_precision"
    assert entry.settings["samples"] == 1
    assert entry.settings["min_sqnr_db"] == 1.0
    assert entry.settings["float_layers"] == ()
    assert entry.settings["outcome"] == "the all-int8 network is within the budget"
    assert int8_state.history == state.history[:-1]


@pytest.mark.slow
def test_on_a_real_runtime(float_state: ModelState) -> None:
    quantized = QuantizeStatic().apply(float_state)
    stage = MixPrecision(max_slowdown=100.0, candidates=1, max_layers=1)
    state = stage.apply(quantized)
    settings = state.history[-1].settings
    kept = state.quantized.encodings.float_nodes
    assert quantized.quantized.encodings.float_nodes == frozenset()
    assert len(settings["float_layers"]) == len(kept) <= 1
    if kept:
        assert settings["sqnr_db"] > settings["all_int8_sqnr_db"]
        assert settings["latency_of_float32"] < 1
    else:
        assert "of the float32 file's time" in settings["outcome"]


def test_the_history_entry_survives_the_manifest(int8_state: ModelState) -> None:
    entry = MixPrecision(samples=8, min_sqnr_db=1.0).apply(int8_state).history[-1]
    again = msgspec.json.decode(msgspec.json.encode(entry), type=HistoryEntry)
    assert again == entry
