"""Widths by latency: prices and bisection against a network whose latency is known exactly."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from known_times import use_known_times
from prunable_networks import make
from small_networks import noise_task
from tiny import make_subject
from torch import nn

from edgedl.compress.graph.axes import Axis
from edgedl.compress.graph.cuts.channel_groups import channel_groups
from edgedl.compress.graph.cuts.tensor_axes import TensorAxes
from edgedl.compress.graph.cuts.widths import narrowing_path
from edgedl.compress.graph.trace import export_graph
from edgedl.compress.latency.file_timer import Prices
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.prune.speed import Found, NetworkTimer, find_widths
from edgedl.compress.state import begin
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.compress.targets.target import Target
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.measure.estimate import Estimate
from edgedl.runtime.measure.measure import Protocol
from edgedl.runtime.precision import INT8


class KnownTimer(NetworkTimer):
    """A network whose every channel takes a known share of the time, and nothing else does."""

    def __init__(self, shares: Mapping[Axis, float]) -> None:
        self.shares = shares
        self.measured = 0

    def ratios(self, candidates: Mapping[str, Mapping[Axis, int]]) -> dict[str, Estimate]:
        self.measured += 1
        found = {}
        for name, widths in candidates.items():
            saved = sum(s * (a.size - widths.get(a, a.size)) for a, s in self.shares.items())
            found[name] = Estimate(1 - saved, 1 - saved, 1 - saved)
        return found

    def prices(self, candidates: Mapping[str, Mapping[Axis, int]]) -> Prices:
        return Prices(self.ratios(candidates), 0)


def search(speedup: float, shares: list[float]) -> tuple[Found, dict[str, int]]:
    axes = TensorAxes(export_graph(*make("residual")))
    groups = channel_groups(axes)
    timer = KnownTimer({g.axis: s for g, s in zip(groups, shares, strict=True)})
    scores = {g.axis: torch.arange(1.0, g.size + 1) for g in groups}
    found = find_widths(groups, scores, timer, speedup, multiple=1)
    return found, {g.name: found.widths[g.axis] for g in groups}


def test_prices_are_the_shares_of_the_time() -> None:
    found, _ = search(1.3, [0.07, 0.03])
    assert list(found.savings.values()) == pytest.approx([0.07, 0.03])


def test_the_widest_network_that_is_fast_enough_is_found() -> None:
    shares = [0.07, 0.03]
    found, widths = search(1.5, shares)
    assert found.latency.value <= 1 / 1.5
    axes = TensorAxes(export_graph(*make("residual")))
    groups = channel_groups(axes)
    scores = {g.axis: torch.arange(1.0, g.size + 1) for g in groups}
    prices = {g.axis: s for g, s in zip(groups, shares, strict=True)}
    wider = [
        w
        for w in narrowing_path(groups, scores, prices, 1)
        if sum(w.values()) > sum(widths.values())
    ]
    slow = [1 - sum(prices[a] * (a.size - n) for a, n in w.items()) for w in wider]
    assert min(slow) > 1 / 1.5


def test_nothing_that_went_could_have_stayed() -> None:
    # A channel of the second group costs three of the first: where it is the last to go, it saves
    # more than was missing.
    gave_back = []
    for speedup in (1.2, 1.3, 1.4, 1.5, 1.6, 1.7):
        shares = [0.02, 0.06]
        found, widths = search(speedup, shares)
        spare = 1 / speedup - found.latency.value
        sizes = {name: axis.size for name, axis in zip(widths, found.widths, strict=True)}
        for (name, width), share in zip(widths.items(), shares, strict=True):
            assert width == sizes[name] or share > spare - 1e-9
        gave_back.append(widths)
    assert len({tuple(w.values()) for w in gave_back}) > 3


def test_channels_that_cost_nothing_stay() -> None:
    _, widths = search(1.5, [0.08, 0.0])
    assert list(widths.values())[1] == 6


def test_a_speedup_out_of_reach_says_what_is_in_reach() -> None:
    with pytest.raises(BadInputError, match=r"1\.43 times faster at its smallest, less than 9"):
        search(9, [0.0, 0.06])


@pytest.mark.slow
def test_a_network_is_timed_on_the_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    use_known_times(monkeypatch)
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(),
                        nn.Conv2d(32, 8, 3), nn.Flatten(), nn.Linear(8 * 26 * 26, 4))  # fmt: skip
    subject = Subject("wide", net.eval(), noise_task((3, 32, 32)))
    state = begin(subject)
    settings = PruneChannels(speedup=1.3, multiple=1).apply(state).history[-1].settings
    assert settings["prices_cached"] == 0
    assert isinstance(settings["latency_ratio"], float)
    assert settings["latency_ratio"] <= 1 / 1.3
    assert isinstance(settings["price_of_a_channel"], tuple)


@pytest.mark.slow
@pytest.mark.parametrize("target", [ORT, TFLITE], ids=lambda target: target.name)
def test_int8_files_are_timed_too(target: Target) -> None:
    subject = make_subject()
    state = begin(subject)
    axes = TensorAxes(export_graph(subject.module, subject.example_inputs()))
    timer = NetworkTimer(state, axes, target, INT8, Protocol(blocks=5))
    (group, *_) = channel_groups(axes)
    found = timer.ratios({"half": {group.axis: 4}, "same": {}})
    assert found.keys() == {"half", "same"}
    assert all(0 < ratio.lo <= ratio.value <= ratio.hi for ratio in found.values())
