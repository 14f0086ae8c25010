"""Time several arms against each other: interleaved, in random order, block by block."""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgedl.runtime.errors import InvalidMeasurementError

Arm = Callable[[], object]

MIN_BLOCKS = 40


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
    on_block: Callable[[int], None] = lambda block: None,
) -> dict[str, Measurement]:
    """Measure every arm in one process, interleaved.

    Args:
        arms: name -> a call that does one inference.
        protocol: blocks, calls, warm-up.
        on_block: called with the number of rounds done.

    Raises:
        InvalidMeasurementError: the clock is too coarse for the fastest arm.
    """
    order = np.random.default_rng(protocol.seed)
    names = list(arms)
    settled, calls = {}, {}
    for name in names:
        settled[name], typical_ns = warm_up(arms[name], protocol)
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
                _run_block(arms[name], protocol.settle_calls, times[name][block])
            on_block(block + 1)
    finally:
        if enabled:
            gc.enable()
    for name in names:
        if (times[name] <= 0).any():
            raise InvalidMeasurementError(f"the clock cannot resolve one call of '{name}'")
    return {name: Measurement(times[name], settled[name]) for name in names}


def warm_up(arm: Arm, protocol: Protocol) -> tuple[bool, float]:
    """Run an arm until its speed is steady; return whether it became so, and ns per call."""
    window = np.zeros(10, np.int64)
    medians: list[float] = []
    deadline = time.perf_counter_ns() + protocol.warmup_ms * 1e6
    while time.perf_counter_ns() < deadline or not medians:
        _run_block(arm, 0, window)
        medians.append(float(np.median(window)))
        last = medians[-3:]
        if len(last) == 3 and max(last) <= min(last) * (1 + protocol.warmup_agreement):
            return True, last[-1]
    return False, medians[-1]


def _run_block(arm: Arm, settle_calls: int, times: npt.NDArray[np.int64]) -> None:
    for _ in range(settle_calls):
        arm()
    clock = time.perf_counter_ns
    for call in range(len(times)):
        start = clock()
        arm()
        times[call] = clock() - start
