"""Widths by latency: what a channel costs on the runtime, and how many must go for a speed-up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from edgedl.compress.graph.trace import trace
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.prune.axes import Axis
from edgedl.compress.prune.channel_groups import ChannelGroup
from edgedl.compress.prune.cut import cut_channels
from edgedl.compress.prune.tensor_axes import TensorAxes
from edgedl.compress.prune.widths import aligned, narrowing_path
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.stage import ModelState
from edgedl.compress.timing import Runtime, load_arm, time_arms
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.measure import Arm, Protocol
from edgedl.runtime.statistics import Estimate

# Calibration samples of the int8 files that are timed: ranges do not change their speed.
SAMPLES = 32
WHOLE = "whole"


class NetworkTimer:
    """Times one network at other widths: exported, loaded, one thread, batch 1."""

    def __init__(
        self,
        state: ModelState,
        axes: TensorAxes,
        runtime: Runtime,
        precision: Literal["float32", "int8"],
        protocol: Protocol | None = None,
    ) -> None:
        """Export the network at full width, which the others are compared with."""
        self._state, self._axes = state, axes
        self._runtime, self._precision = runtime, precision
        self._protocol = protocol or Protocol()
        self._whole = self._load({})

    def ratios(self, candidates: Mapping[str, Mapping[Axis, int]]) -> dict[str, Estimate]:
        """Return latency over that of the whole network, by name of the widths.

        Raises:
            ExportError: a file cannot be made.
            BadInputError: the runtime refuses a file, or there is no calibration data.
            InvalidMeasurementError: the clock is too coarse.
        """
        arms = {WHOLE: self._whole}
        arms |= {name: self._load(widths) for name, widths in candidates.items()}
        found = time_arms(arms, self._protocol)
        return {name: found.ratio(WHOLE, name) for name in candidates}

    def _load(self, widths: Mapping[Axis, int]) -> Arm:
        """Export a network of other widths; which channels stay does not matter for time."""
        subject = self._state.subject
        kept = {axis: torch.arange(width) for axis, width in widths.items()}
        network = TracedNetwork(cut_channels(self._axes, kept))
        graph = trace(network, subject.example_inputs(), subject.free_axes)
        state = ModelState(replace(subject, module=network), graph)
        if self._precision == "int8":
            state = QuantizeStatic(SAMPLES, SAMPLES, "minmax").apply(state)
        return load_arm(state, self._runtime, self._precision)


@dataclass(frozen=True)
class Found:
    """Widths that are fast enough, and what was measured.

    Attributes:
        widths: leaf -> channels that stay.
        latency: over that of the whole network, measured on the whole file.
        savings: name of a group -> share of the latency that one of its channels costs.
    """

    widths: dict[Axis, int]
    latency: Estimate
    savings: dict[str, float]


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
    bisection, the whole file timed at each step.

    Source: the price of a channel from a timed network is of Yang et al., "NetAdapt", 2018, section
    3.2, where a table of layers stands in for the network.

    Raises:
        BadInputError: the narrowest network is not fast enough.
    """
    savings = _savings(groups, timer, multiple)
    path = list(narrowing_path(groups, scores, savings, multiple))
    wanted = 1 / speedup

    def measured(step: int) -> Estimate:
        return timer.ratios({"narrow": path[step]})["narrow"]

    last = len(path) - 1
    narrowest = measured(last) if last else Estimate(1.0, 1.0, 1.0)
    if narrowest.hi > wanted:
        raise BadInputError(
            f"the network is {1 / narrowest.value:.2f} times faster at its narrowest, wanted is "
            f"{speedup}: lower speedup"
        )
    low, high, found = 0, last, narrowest
    while high - low > 1:
        middle = (low + high) // 2
        latency = measured(middle)
        if latency.hi <= wanted:
            high, found = middle, latency
        else:
            low = middle
    return Found(path[high], found, {g.name: savings[g.axis] for g in groups})


def _savings(
    groups: Sequence[ChannelGroup], timer: NetworkTimer, multiple: int
) -> dict[Axis, float]:
    """Return the share of the latency that one channel of each group costs; never below 0."""
    halves = {g.axis: aligned(g.size / 2, g.size, multiple) for g in groups}
    wanted = {g.name: {g.axis: halves[g.axis]} for g in groups if halves[g.axis] < g.size}
    ratios = timer.ratios(wanted)
    return {
        g.axis: max(0.0, 1 - ratios[g.name].value) / (g.size - halves[g.axis])
        if g.name in ratios
        else 0.0
        for g in groups
    }
