"""Interleaving, warm-up and recording: who ran when on the real clock, exact times on a toy."""

import gc
from collections import Counter
from itertools import groupby, pairwise

import numpy as np
import pytest

from edgedl.runtime.errors import InvalidMeasurementError
from edgedl.runtime.measure import measure as measure_module
from edgedl.runtime.measure.measure import Protocol, measure, measure_loads, warm_up

QUICK = Protocol(blocks=6, min_calls=2, max_calls=4, settle_calls=3, warmup_ms=5.0)


class ToyTime:
    """A clock that moves only when an arm works or somebody sleeps; ``tick`` is its resolution."""

    def __init__(self, tick_ns: int = 1) -> None:
        self.now_ns = 0
        self.tick_ns = tick_ns
        self.slept_ms = 0.0

    def perf_counter_ns(self) -> int:
        return self.now_ns // self.tick_ns * self.tick_ns

    def sleep(self, seconds: float) -> None:
        self.slept_ms += seconds * 1e3
        self.now_ns += int(seconds * 1e9)

    def arm(self, *durations_ns: int):
        """Return an arm whose calls take these times, over and over."""
        calls = iter(range(10**9))

        def work() -> None:
            self.now_ns += durations_ns[next(calls) % len(durations_ns)]

        return work


@pytest.fixture
def toy_time(monkeypatch):
    clock = ToyTime()
    monkeypatch.setattr(measure_module, "time", clock)
    return clock


def count_calls(names, protocol):
    """Measure arms that write down when they run; return the measurements and their log."""
    log = []

    def arm(name):
        def work():
            log.append(name)
            sum(range(300))  # longer than any clock's tick

        return work

    arms = {name: arm(name) for name in names}
    measured = measure(arms, protocol)
    calls = sum(m.latency_ns.shape[2] + protocol.settle_calls for m in measured.values())
    # Where each round ends, counted from the last.
    ends = [len(log) - calls * (protocol.blocks - block) for block in range(protocol.blocks + 1)]
    return measured, log, ends


def test_every_call_is_recorded_once():
    measured, log, ends = count_calls("abc", QUICK)
    assert list(measured) == ["a", "b", "c"]
    calls = {name: m.latency_ns.shape[2] for name, m in measured.items()}
    per_round = sum(n + QUICK.settle_calls for n in calls.values())
    warm_up_calls = ends[0]
    for start, end in pairwise(ends):
        assert {name: log[start:end].count(name) for name in "abc"} == {
            name: n + QUICK.settle_calls for name, n in calls.items()
        }
    assert warm_up_calls % 10 == 0
    assert warm_up_calls >= 30
    assert len(log) == warm_up_calls + QUICK.blocks * per_round
    for m in measured.values():
        assert m.latency_ns.dtype == np.int64
        assert m.latency_ns.shape[:2] == (1, QUICK.blocks)
        assert (m.latency_ns > 0).all()


def orders(protocol):
    """Return the arms' order in each round."""
    measured, log, ends = count_calls("abcd", protocol)
    found = []
    for start, end in pairwise(ends):
        blocks = [(name, len(list(calls))) for name, calls in groupby(log[start:end])]
        sizes = {n: m.latency_ns.shape[2] + protocol.settle_calls for n, m in measured.items()}
        assert dict(blocks) == sizes
        assert len(blocks) == 4
        found.append("".join(name for name, _ in blocks))
    return found


def test_each_round_runs_every_arm_once_in_a_new_order():
    protocol = Protocol(blocks=40, min_calls=2, max_calls=2, settle_calls=1, warmup_ms=1.0)
    drawn = orders(protocol)
    assert len(drawn) == 40
    first = Counter(order[0] for order in drawn)
    assert set(first) == set("abcd")
    assert max(first.values()) < 20
    assert drawn == orders(protocol)
    assert drawn != orders(Protocol(**{**vars(protocol), "seed": 1}))


def test_times_are_those_of_the_calls(toy_time):
    protocol = Protocol(blocks=40, min_calls=3, max_calls=50, settle_calls=3, block_ms=1.0)
    arms = {"slow": toy_time.arm(700_000), "fast": toy_time.arm(7), "mixed": toy_time.arm(90_000)}
    measured = measure(arms, protocol)
    assert measured["slow"].latency_ns[0].tolist() == [[700_000] * 3] * 40
    assert measured["fast"].latency_ns[0].tolist() == [[7] * 50] * 40
    assert measured["mixed"].latency_ns[0].tolist() == [[90_000] * 11] * 40
    assert all(m.settled for m in measured.values())


@pytest.mark.parametrize(("call_us", "rounds"), [(300, 160), (2_500, 70), (30_000, 40)])
def test_slow_arms_take_fewer_rounds_of_few_calls(toy_time, call_us, rounds):
    arms = {name: toy_time.arm(1000 * call_us) for name in "ab"}
    measured = measure(arms, Protocol())
    calls = max(2, min(10, 3000 // call_us))
    assert measured["a"].latency_ns.shape == (1, rounds, calls)


class Loads:
    """An arm whose every load is slower than the one before."""

    def __init__(self, load_ms=1.0):
        self.loads, self.asked, self.load_ms = 0, [], load_ms

    def reload(self):
        self.loads += 1

    def block(self, settle_calls, calls):
        self.asked.append((self.loads, settle_calls, calls))
        return np.full(calls, 1000 * (1 + self.loads))


def test_every_load_has_its_share_of_the_rounds():
    arm, other = Loads(), Loads()
    protocol = Protocol(blocks=40, loads=4, min_calls=3, max_calls=3)
    measured = measure_loads({"a": arm, "b": other}, protocol)
    assert arm.loads == other.loads == 3
    times = measured["a"].latency_ns
    assert times.shape == (4, 10, 3)
    assert [set(load.ravel()) for load in times] == [{1000}, {2000}, {3000}, {4000}]
    # A new load is warm before its first round.
    first = [next(asked for asked in arm.asked if asked[0] == load) for load in (1, 2, 3)]
    assert first == [(1, 3, 1), (2, 3, 1), (3, 3, 1)]


def test_the_first_load_of_a_process_does_not_count():
    class Imports(Loads):
        def reload(self):
            super().reload()
            self.load_ms = 10.0

    arm = Imports(5000.0)
    measured = measure_loads({"a": arm}, Protocol(blocks=40, min_calls=3, max_calls=3))
    assert measured["a"].latency_ns.shape == (10, 4, 3)
    assert arm.loads == 10


@pytest.mark.parametrize(("load_ms", "loads"), [(100, 10), (900, 6), (60_000, 4)])
def test_files_that_take_long_to_load_are_loaded_less_often(load_ms, loads):
    arms = {"a": Loads(load_ms), "b": Loads(0.1 * load_ms)}
    measured = measure_loads(arms, Protocol(blocks=40, min_calls=3, max_calls=3))
    assert measured["a"].latency_ns.shape == (loads, -(-40 // loads), 3)


def test_first_calls_of_a_block_are_not_recorded(toy_time):
    # Period 5: three slow calls while the caches fill, two fast ones; a warm-up window holds two.
    protocol = Protocol(blocks=4, min_calls=2, max_calls=2, settle_calls=3)
    measured = measure({"a": toy_time.arm(900, 900, 900, 10, 20)}, protocol)
    assert measured["a"].latency_ns[0].tolist() == [[10, 20]] * 4


def test_pause_before_every_block(toy_time):
    protocol = Protocol(blocks=7, pause_ms=2.5, min_calls=1, max_calls=1)
    measured = measure({"a": toy_time.arm(100), "b": toy_time.arm(100)}, protocol)
    assert toy_time.slept_ms == pytest.approx(7 * 2 * 2.5)
    assert (measured["a"].latency_ns == 100).all()


def test_coarse_clock_is_an_invalid_measurement(toy_time, refused):
    toy_time.tick_ns = 1_000_000
    arms = {"slow": toy_time.arm(3_000_000), "quick": toy_time.arm(1_000)}
    with refused(InvalidMeasurementError, "'quick'", "clock"):
        measure(arms, Protocol(blocks=2, min_calls=2, max_calls=4))


@pytest.mark.parametrize(
    ("growth", "agreement", "steady"), [(1.0, 0.01, True), (1.004, 0.01, True), (1.03, 0.01, False)]
)
def test_warm_up_ends_when_three_windows_agree(toy_time, growth, agreement, steady):
    windows = [int(1e5 * growth**i) for i in range(40)]
    arm = toy_time.arm(*np.repeat(windows, 10).tolist())
    settled, typical_ns = warm_up(arm, Protocol(warmup_ms=20.0, warmup_agreement=agreement))
    assert settled is steady
    if steady:
        assert typical_ns == windows[2]
        assert toy_time.now_ns == 10 * sum(windows[:3])
    else:
        assert toy_time.now_ns >= 20e6


def test_warm_up_waits_for_the_slow_start_to_pass(toy_time):
    durations = [5_000] * 10 + [3_000] * 10 + [1_000] * 1000
    assert warm_up(toy_time.arm(*durations), Protocol()) == (True, 1_000.0)
    assert toy_time.now_ns == 10 * (5_000 + 3_000) + 30 * 1_000


def test_collector_rests_during_the_blocks_and_comes_back():
    states = []
    measure({"a": lambda: states.append(gc.isenabled())}, QUICK)
    assert states[-1] is False
    assert gc.isenabled()


def test_arm_that_fails_brings_the_collector_back():
    calls = iter(range(10**6))

    def arm():
        if next(calls) > 100 and not gc.isenabled():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure({"a": arm}, Protocol(blocks=200, min_calls=2, max_calls=4, warmup_ms=1.0))
    assert gc.isenabled()


def test_collector_that_was_off_stays_off():
    gc.disable()
    try:
        measure({"a": lambda: None}, QUICK)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_nothing_to_measure():
    assert measure({}, QUICK) == {}
