"""Time several arms against each other: interleaved, in random order, load by load."""

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
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


class Reloadable(Timed, Interface):
    """Something that is timed after several loads.

    Attributes:
        load_ms: what the last load took.
    """

    load_ms: float

    def reload(self) -> None:
        """Load it anew; the calls that follow are of the new load."""
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


# Rounds: of networks that take a millisecond or less, and of slow ones.
MOST_BLOCKS = 160
LEAST_BLOCKS = 40
LOADS = 10
LEAST_LOADS = 4
# Calls whose median the warm-up looks at.
WINDOW = 10


@dataclass(frozen=True)
class Protocol:
    """How an interleaved measurement is made.

    Attributes:
        blocks: most rounds; each arm runs once per round, in an order drawn anew. Many short
            blocks are better than a few long ones: what slows the machine down for some
            milliseconds slows all arms down.
        arm_ms: time that an arm should take in all; it sets the rounds, ``LEAST_BLOCKS`` at least.
        loads: how often every file is loaded at most, if it can be loaded anew; rounds are divided
            among them.
        load_ms: time that an arm's loads should take in all; where it is less than they take, there
            are fewer, ``LEAST_LOADS`` at least.
        block_ms: time an arm's block should take; it sets the calls per block.
        min_calls, max_calls: bounds on the calls per block.
        settle_calls: calls at the start of a block that are not recorded: the caches and the
            thread pool are still the previous arm's.
        pause_ms: rest before a block, so that another arm's spinning workers fall asleep.
        warmup_ms: longest warm-up of an arm before the first round.
        warmup_agreement: the warm-up ends when three windows' medians agree this well.
        seed: of the order.
    """

    blocks: int = MOST_BLOCKS
    arm_ms: float = 700.0
    loads: int = LOADS
    load_ms: float = 3000.0
    block_ms: float = 3.0
    min_calls: int = 2
    max_calls: int = 50
    settle_calls: int = 2
    pause_ms: float = 0.0
    warmup_ms: float = 500.0
    warmup_agreement: float = 0.02
    seed: int = 0


@dataclass(frozen=True)
class Measurement:
    """Raw times of one arm; every statistic is derived from them.

    Attributes:
        latency_ns: int64 [loads, blocks, calls], wall time of each recorded call.
        settled: whether the warm-up ended by agreement rather than by its time limit.
    """

    latency_ns: npt.NDArray[np.int64]
    settled: bool


def measure(arms: Mapping[str, Arm], protocol: Protocol) -> dict[str, Measurement]:
    """Measure every arm in this process, interleaved, as it is loaded.

    Args:
        arms: name -> a call that does one inference.
        protocol: blocks, calls, warm-up.

    Raises:
        InvalidMeasurementError: the clock is too coarse for the fastest arm.
    """
    rounds = _Rounds({name: Call(arm) for name, arm in arms.items()}, protocol)
    return rounds.measured([rounds.run(rounds.count)])


def measure_loads(arms: Mapping[str, Reloadable], protocol: Protocol) -> dict[str, Measurement]:
    """Measure every arm, wherever it runs, interleaved, after several loads of all of them.

    After each load but the first, which is warmed up, as many calls as a block has are not
    recorded.

    Args:
        arms: name -> what times its own calls, and can load its file anew.
        protocol: loads, blocks, calls, warm-up.

    Raises:
        InvalidMeasurementError: the clock is too coarse for the fastest arm.
    """
    fitting = _fitting_loads(arms, protocol)
    if fitting < protocol.loads:
        # The first load of a process imports its runtime.
        for arm in arms.values():
            arm.reload()
        fitting = _fitting_loads(arms, protocol)
    rounds = _Rounds(arms, protocol)
    loads = min(protocol.loads, rounds.count, max(LEAST_LOADS, fitting))
    found = []
    for load in range(loads):
        if load:
            for name, arm in arms.items():
                arm.reload()
                arm.block(rounds.calls[name], 1)
        found.append(rounds.run(math.ceil(rounds.count / loads)))
    return rounds.measured(found)


def _fitting_loads(arms: Mapping[str, Reloadable], protocol: Protocol) -> int:
    """Return how many loads of all arms fit into their time."""
    taken_ms = sum(arm.load_ms for arm in arms.values())
    return int(protocol.load_ms * len(arms) / max(taken_ms, 1e-6))


class _Rounds:
    """Rounds of arms that are warm.

    Attributes:
        calls: of each arm's block.
        count: of rounds.
    """

    def __init__(self, arms: Mapping[str, Timed], protocol: Protocol) -> None:
        self._arms, self._protocol = arms, protocol
        self._order = np.random.default_rng(protocol.seed)
        self._settled: dict[str, bool] = {}
        self.calls: dict[str, int] = {}
        round_ms = 0.0
        for name, arm in arms.items():
            self._settled[name], typical_ns = _warm_up(arm, protocol)
            wanted = int(protocol.block_ms * 1e6 / max(typical_ns, 1.0))
            self.calls[name] = min(max(wanted, protocol.min_calls), protocol.max_calls)
            round_ms += (protocol.settle_calls + self.calls[name]) * typical_ns / 1e6
        fitting = protocol.arm_ms * len(arms) / max(round_ms, 1e-6)
        self.count = int(min(protocol.blocks, max(LEAST_BLOCKS, fitting)))

    def run(self, count: int) -> dict[str, npt.NDArray[np.int64]]:
        """Return the times of ``count`` rounds, int64 [count, calls] of each arm."""
        names, protocol = list(self._arms), self._protocol
        times = {name: np.zeros((count, self.calls[name]), np.int64) for name in names}
        enabled = gc.isenabled()
        gc.disable()
        try:
            for block in range(count):
                for index in self._order.permutation(len(names)):
                    name = names[index]
                    if protocol.pause_ms:
                        time.sleep(protocol.pause_ms / 1e3)
                    times[name][block] = self._arms[name].block(
                        protocol.settle_calls, self.calls[name]
                    )
        finally:
            if enabled:
                gc.enable()
        return times

    def measured(
        self, loads: Sequence[Mapping[str, npt.NDArray[np.int64]]]
    ) -> dict[str, Measurement]:
        """Return the measurement of each arm over all loads.

        Raises:
            InvalidMeasurementError: the clock cannot resolve a call.
        """
        found = {}
        for name in self._arms:
            times = np.stack([load[name] for load in loads])
            if (times <= 0).any():
                raise InvalidMeasurementError(f"the clock cannot resolve one call of '{name}'")
            found[name] = Measurement(times, self._settled[name])
        return found


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
