"""Widths by latency: what a channel costs on the runtime, and how many must go for a speed-up."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from edgedl.compress.graph.axes import Axis
from edgedl.compress.graph.cuts.channel_groups import ChannelGroup, channel_groups
from edgedl.compress.graph.cuts.cut import cut_channels
from edgedl.compress.graph.cuts.tensor_axes import TensorAxes
from edgedl.compress.graph.cuts.widths import aligned, narrowing_path, widening_path
from edgedl.compress.latency.file_timer import (
    FileTimer,
    Prices,
    bisect,
    first_fast_enough,
)
from edgedl.compress.state import ModelState
from edgedl.compress.targets.target import Target
from edgedl.runtime.measure.estimate import Estimate
from edgedl.runtime.measure.measure import Protocol
from edgedl.runtime.precision import Precision


class NetworkTimer:
    """Times one network at other widths."""

    def __init__(
        self,
        state: ModelState,
        axes: TensorAxes,
        target: Target,
        precision: Precision,
        protocol: Protocol | None = None,
    ) -> None:
        """Export the network at full width, which the others are compared with."""
        self._axes = axes
        self._files = FileTimer(state, axes.graph, target, precision, protocol)

    def ratios(self, candidates: Mapping[str, Mapping[Axis, int]]) -> dict[str, Estimate]:
        """Return latency over that of the whole network, by name of the widths.

        Raises:
            ExportError: a file cannot be made.
            BadInputError: the runtime refuses a file, or there is no calibration data.
            InvalidMeasurementError: the clock is too coarse.
        """
        return self._files.ratios({n: self._cut(widths) for n, widths in candidates.items()})

    def prices(self, candidates: Mapping[str, Mapping[Axis, int]]) -> Prices:
        """Return the ratios, those measured before on this machine from its cache.

        Raises:
            OSError: the cache cannot be written.
        """
        return self._files.prices({n: self._cut(widths) for n, widths in candidates.items()})

    def _cut(self, widths: Mapping[Axis, int]) -> fx.GraphModule:
        """Return a network of other widths; which channels stay does not matter for time."""
        kept = {axis: torch.arange(width) for axis, width in widths.items()}
        return cut_channels(self._axes, kept)


@dataclass(frozen=True)
class Found:
    """Widths that are fast enough, and what was measured.

    Attributes:
        widths: leaf -> channels that stay.
        latency: over that of the whole network, measured on the whole file.
        savings: name of a group -> share of the latency that one of its channels costs.
        cached: how many of those were measured before.
        narrowest: latency of the narrowest network there is: what no width takes away.
    """

    widths: dict[Axis, int]
    latency: Estimate
    savings: dict[str, float]
    cached: int
    narrowest: Estimate


def find_widths(
    groups: Sequence[ChannelGroup],
    scores: Mapping[Axis, Tensor],
    timer: NetworkTimer,
    speedup: float,
    multiple: int,
) -> Found:
    """Return the widest network that is fast enough by the upper end of the measured interval.

    Every group is halved by itself and the file timed, which prices its channels. Blocks of
    ``multiple`` channels then go in the order of importance per millisecond; how many, is found by
    bisection, the whole file timed at each step. The last block may save more than was missing:
    what went before it and can be paid for with the rest is given back.

    Source: the price of a channel from a timed network is of Yang et al., "NetAdapt", 2018, section
    3.2, where a table of layers stands in for the network.

    Raises:
        BadInputError: the narrowest network is not fast enough.
    """
    savings, cached = _savings(groups, timer, multiple)
    path = list(narrowing_path(groups, scores, savings, multiple))

    def latency_of(widths: Mapping[Axis, int]) -> Estimate:
        return timer.ratios({"narrow": widths})["narrow"]

    step, latency, narrowest = first_fast_enough(
        len(path) - 1, lambda step: latency_of(path[step]), speedup
    )
    spare = 1 / speedup - latency.hi
    wider = list(widening_path(groups, scores, savings, multiple, path[step], spare))[::-1]
    step, latency = bisect(
        -1, len(wider) - 1, latency, lambda step: latency_of(wider[step]), 1 / speedup
    )
    prices = {g.name: savings[g.axis] for g in groups}
    return Found(wider[step], latency, prices, cached, narrowest)


def _savings(
    groups: Sequence[ChannelGroup], timer: NetworkTimer, multiple: int
) -> tuple[dict[Axis, float], int]:
    """Return the share of the latency that one channel of each group costs; never below 0.

    And how many of these were measured before.
    """
    halves = {g.axis: aligned(g.size / 2, g.size, g.step(multiple)) for g in groups}
    wanted = {g.name: {g.axis: halves[g.axis]} for g in groups if halves[g.axis] < g.size}
    prices = timer.prices(wanted)
    ratios = prices.ratios
    savings = {
        g.axis: max(0.0, 1 - ratios[g.name].value) / (g.size - halves[g.axis])
        if g.name in ratios
        else 0.0
        for g in groups
    }
    return savings, prices.cached


def seconds_of_search(
    state: ModelState, target: Target, precision: Precision, multiple: int
) -> float:
    """Return how long ``find_widths`` takes, from timing the network at one width.

    Raises:
        EdgedlError: the network cannot be timed.
    """
    axes = TensorAxes(state.trainable_graph())
    groups = channel_groups(axes)
    start = time.monotonic()
    timer = NetworkTimer(state, axes, target, precision)
    half = {g.axis: aligned(g.size / 2, g.size, g.step(multiple)) for g in groups}
    timer.ratios({"half": half})
    # Every group once, then bisection over the blocks of channels.
    blocks = sum(g.size // g.step(multiple) for g in groups)
    return (time.monotonic() - start) * (len(groups) + math.log2(max(2, blocks))) / 2
