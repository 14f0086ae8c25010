"""Time several arms against each other: interleaved, in random order, block by block."""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol as Interface

import numpy as np
import numpy.typing as npt

from edgedl.runtime.errors import InvalidMeasurementError

Arm = Callable[[], object]


class Timed(Interface):
    """Something whose calls are timed in blocks."""

    def block(self, settle_calls: int, calls: int) -> npt.NDArray[np.int64]:
        """Return the wall time of each recorded call, int64 [calls], in nanoseconds.

        ``settle_calls`` before them are not recorded.
        """
        ...


class Call:
    """A call in this process."""

    def __init__(self, arm: Arm) -> None:
        """Take what does one inference."""
        self._arm = arm

    def block(self, settle_calls: int, calls: int) -> npt.NDArray[np.int64]:
        """Return the wall time of each recorded call, in nanoseconds."""
        arm, clock = self._arm, time.perf_counter_ns
        times = np.zeros(calls, np.int64)
        for _ in range(settle_calls):
            arm()
        for call in range(calls):
            start = clock()
            arm()
            times[call] = clock() - start
        return times


MIN_BLOCKS = 40
# Calls whose median the warm-up looks at.
WINDOW = 10


@dataclass(frozen=True)
class Protocol:
    """How an interleaved measurement is made.

    Attributes:
        blocks: rounds; each arm runs once per round, in an order drawn anew.
        block_ms: time an arm's block should take; it sets the calls per block.
        min_calls, max_calls: bounds on the calls per block.
        settle_calls: calls at the start of a block that are not recorded: the caches and the
            thread pool are still the previous arm's.
        pause_ms: rest before a block, so that another arm's spinning workers fall asleep.
        warmup_ms: longest warm-up of an arm before the first round.
        warmup_agreement: the warm-up ends when three windows' medians agree this well.
        seed: of the order.
    """

    blocks: int = MIN_BLOCKS
    block_ms: float = 12.0
    min_calls: int = 5
    max_calls: int = 50
    settle_calls: int = 3
    pause_ms: float = 0.0
    warmup_ms: float = 1000.0
    warmup_agreement: float = 0.01
    seed: int = 0


@dataclass(frozen=True)
class Measurement:
    """Raw times of one arm; every statistic is derived from them.

    Attributes:
        latency_ns: int64 [blocks, calls], wall time of each recorded call.
        settled: whether the warm-up ended by agreement rather than by its time limit.
    """

    latency_ns: npt.NDArray[np.int64]
    settled: bool


def measure(
    arms: Mapping[str, Arm],
    protocol: Protocol,
) -> dict[str, Measurement]:
    """Measure every arm in this process, interleaved.

    Args:
        arms: name -> a call that does one inference.
        protocol: blocks, calls, warm-up.

    Raises:
        InvalidMeasurementError: the clock is too coarse for the fastest arm.
    """
    return measure_timed({name: Call(arm) for name, arm in arms.items()}, protocol)


def measure_timed(
    arms: Mapping[str, Timed],
    protocol: Protocol,
) -> dict[str, Measurement]:
    """Measure every arm, wherever it runs, interleaved.

    Args:
        arms: name -> what times its own calls.
        protocol: blocks, calls, warm-up.

    Raises:
        InvalidMeasurementError: the clock is too coarse for the fastest arm.
    """
    order = np.random.default_rng(protocol.seed)
    names = list(arms)
    settled, calls = {}, {}
    for name in names:
        settled[name], typical_ns = _warm_up(arms[name], protocol)
        wanted = int(protocol.block_ms * 1e6 / max(typical_ns, 1.0))
        calls[name] = min(max(wanted, protocol.min_calls), protocol.max_calls)
    times = {name: np.zeros((protocol.blocks, calls[name]), np.int64) for name in names}
    enabled = gc.isenabled()
    gc.disable()
    try:
        for block in range(protocol.blocks):
            for index in order.permutation(len(names)):
                name = names[index]
                if protocol.pause_ms:
                    time.sleep(protocol.pause_ms / 1e3)
                times[name][block] = arms[name].block(protocol.settle_calls, calls[name])
    finally:
        if enabled:
            gc.enable()
    for name in names:
        if (times[name] <= 0).any():
            raise InvalidMeasurementError(f"the clock cannot resolve one call of '{name}'")
    return {name: Measurement(times[name], settled[name]) for name in names}


def warm_up(arm: Arm, protocol: Protocol) -> tuple[bool, float]:
    """Run an arm until its speed is steady; return whether it became so, and ns per call."""
    return _warm_up(Call(arm), protocol)


def _warm_up(arm: Timed, protocol: Protocol) -> tuple[bool, float]:
    medians: list[float] = []
    deadline = time.perf_counter_ns() + protocol.warmup_ms * 1e6
    while time.perf_counter_ns() < deadline or not medians:
        medians.append(float(np.median(arm.block(0, WINDOW))))
        last = medians[-3:]
        if len(last) == 3 and max(last) <= min(last) * (1 + protocol.warmup_agreement):
            return True, last[-1]
    return False, medians[-1]
