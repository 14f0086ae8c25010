"""The recommendation follows from intervals alone."""

import numpy as np
import pytest
from measured import candidate, judged
from msgspec.structs import replace

from edgedl.runtime.bundle.certificates import Finding
from edgedl.runtime.measure.measure import Measurement
from edgedl.tools.bench.bench import slower_in
from edgedl.tools.bench.recommend import recommend, speed_verdict
from edgedl.tools.bench.result import Candidate, Drop

BASELINE = candidate("ort-float32", (1.0, 1.0), size=400)


@pytest.mark.parametrize(
    ("others", "budget", "expected"),
    [
        ([candidate("ort-int8", (0.5, 0.6))], None, "ort-int8"),
        # Certainly within the budget counts, not perhaps.
        ([candidate("ort-int8", (0.5, 0.6), (0.2, 0.7))], 0.5, "ort-float32"),
        ([candidate("ort-int8", (0.5, 0.6), (0.2, 0.7))], 0.8, "ort-int8"),
        # Slower than float32, or not certainly faster: keep float32.
        ([candidate("ort-int8", (1.2, 1.3))], None, "ort-float32"),
        ([candidate("ort-int8", (0.9, 1.1))], None, "ort-float32"),
        # A smaller one that is not certainly faster does not hide one that is.
        (
            [
                candidate("tflite-float32", (0.91, 0.96), size=600),
                candidate("ort-float16", (0.95, 1.0), size=30),
            ],
            None,
            "tflite-float32",
        ),
        # Speeds that cannot be told apart: the smaller file, if it is near the fastest.
        (
            [
                candidate("ort-int8", (0.50, 0.60), size=100),
                candidate("tflite-int8", (0.52, 0.61), size=90),
            ],
            None,
            "tflite-int8",
        ),
        (
            [
                candidate("ort-int8", (0.50, 0.60), size=100),
                candidate("tflite-int8", (0.55, 0.65), size=90),
            ],
            None,
            "ort-int8",
        ),
        # The smaller file, were it not slower than float32 on the same runtime.
        (
            [
                candidate("tflite-float32", (0.78, 0.82), size=310),
                candidate("tflite-int8", (0.81, 0.85), size=90, same_runtime=(1.03, 1.05)),
            ],
            None,
            "tflite-float32",
        ),
        (
            [
                candidate("ort-int8", (0.50, 0.54), size=100),
                candidate("tflite-int8", (0.55, 0.65), size=90),
            ],
            None,
            "ort-int8",
        ),
    ],
)
def test_choice(others: list[Candidate], budget: float | None, expected: str) -> None:
    assert recommend(judged([BASELINE, *others], budget), budget).name == expected


@pytest.mark.parametrize("perhaps", [False, True])
def test_what_was_measured_of_two_files_decides_between_them(perhaps: bool) -> None:
    fast = candidate("tflite-float32", (0.78, 0.92), size=310)
    small = candidate("ort-int8", (0.88, 0.94), size=90)

    def may_be_slower(one: Candidate, other: Candidate) -> bool:
        return perhaps and (one.name, other.name) == ("ort-int8", "tflite-float32")

    found = recommend([BASELINE, fast, small], None, may_be_slower=may_be_slower).name
    assert found == ("tflite-float32" if perhaps else "ort-int8")


def test_two_files_are_told_apart_by_the_rounds_that_both_were_in() -> None:
    rng = np.random.default_rng(0)
    # The machine is slow and fast in turn: against a baseline of its own rounds both look alike.
    machine = np.exp(0.3 * rng.standard_normal((10, 8, 1)))
    calls = np.exp(0.01 * rng.standard_normal((10, 8, 5)))
    times = {
        name: Measurement((1e6 * factor * machine * calls).astype(np.int64), True)
        for name, factor in (("ort-float32", 1.0), ("ort-float16", 1.01), ("ort-int8", 1.09))
    }
    may_be_slower = slower_in(times)
    a, b, c = (candidate(name, (0.5, 0.6)) for name in times)
    assert may_be_slower(c, a)
    assert not may_be_slower(a, c)
    assert not may_be_slower(b, a)


def test_a_smaller_file_of_uncertain_speed_is_not_taken_for_as_fast() -> None:
    rng = np.random.default_rng(0)
    # Every load of the second one has a speed of its own, on average that of the first.
    loads = np.exp(0.15 * rng.standard_normal((10, 1, 1)))
    calls = np.exp(0.01 * rng.standard_normal((2, 10, 8, 5)))
    times = {
        "ort-float32": Measurement((1e6 * calls[0]).astype(np.int64), True),
        "openvino-int8": Measurement((1e6 * loads * calls[1]).astype(np.int64), True),
    }
    steady, unsteady = (candidate(name, (0.5, 0.6)) for name in times)
    assert slower_in(times)(unsteady, steady)


def test_budget_is_about_the_strongest_precision() -> None:
    half = candidate("ort-float16", (1.0, 1.0))
    poor = candidate("ort-int8", (0.5, 0.6), (1.0, 2.0))
    for budget, met in ((0.5, False), (2.5, True)):
        assert recommend(judged([BASELINE, half, poor], budget), budget).budget_met is met
    assert recommend(judged([BASELINE, half], 0.5), 0.5).budget_met is True
    assert recommend([BASELINE, poor], None).budget_met is None
    weights = candidate("ort-int4_weights", (0.9, 1.0), (1.0, 2.0))
    assert recommend(judged([BASELINE, half, weights], 0.5), 0.5).budget_met is False


def test_a_budget_is_not_met_by_the_parent_or_by_files_that_do_not_run() -> None:
    parent = candidate("parent:ort-float32", (1.0, 1.0))
    pruned = candidate("ort-float32", (0.3, 0.4), (70.0, 71.0))
    assert recommend(judged([parent, pruned], 0.5), 0.5).budget_met is False
    assert recommend(judged([BASELINE], 0.5), 0.5, {"float32", "int8"}).budget_met is False
    assert recommend(judged([BASELINE], 0.5), 0.5, {"float32"}).budget_met is True


def test_notes_name_what_is_smaller_but_not_faster() -> None:
    (note,) = recommend([BASELINE, candidate("ort-float16", (0.99, 1.05))], None).notes
    assert note.startswith("ort-float16 is smaller, not faster")
    (note,) = recommend([BASELINE, candidate("ort-int4_weights", (1.1, 1.2))], None).notes
    assert note.startswith("ort-int4_weights is smaller, not faster: ")
    assert recommend([BASELINE, candidate("ort-int8", (0.5, 0.6))], None).notes == ()
    assert recommend([BASELINE, candidate("ort-int4_weights", (0.5, 0.6))], None).notes == ()


def test_notes_call_smaller_only_what_is() -> None:
    """By the float32 file of the same runtime, which is not the baseline's."""
    device = candidate("tflite-float32", (0.9, 1.0), size=300)
    for size, words in (
        (299, "is smaller, not faster: 1.05"),
        (300, "is neither smaller nor faster: 1.05"),
        (350, "is neither smaller nor faster: 1.05"),
    ):
        file = candidate("tflite-int8", (0.9, 1.0), size=size, same_runtime=(1.0, 1.1))
        (note,) = recommend([BASELINE, device, file], None).notes
        assert note.startswith(f"tflite-int8 {words}")


SLOW = candidate("ort-float16", (1.1, 1.2), (-1.0, 3.0))
OVER = candidate("tflite-int8", (0.2, 0.3), (4.0, 5.0))
PERHAPS = candidate("ort-int8", (0.4, 0.5), (-1.88, 1.88))


@pytest.mark.parametrize("budget", [None, 1.0])
def test_what_may_be_within_the_budget_is_named_when_the_baseline_is_kept(
    budget: float | None,
) -> None:
    slower = candidate("ort-int8_weights", (0.6, 0.7), (-1.88, 1.88))
    found = recommend(judged([BASELINE, SLOW, OVER, slower, PERHAPS], budget), budget)
    assert found.name == "ort-float32"
    assert found.reason == (
        "nothing faster than the float32 baseline is certainly within 1 point: use the "
        "baseline; ort-int8 is 2.22x faster than it and may be within the limit, score drop +0.00 "
        "points [-1.88, +1.88], no number of samples will decide it in practice"
    )
    drop = replace(PERHAPS.drop, more_samples=160)
    counted = replace(PERHAPS, drop=drop)
    reason = recommend(judged([BASELINE, counted], budget), budget).reason
    assert reason.endswith("[-1.88, +1.88], 160 more samples needed")


@pytest.mark.parametrize("budget", [None, 1.0])
def test_where_all_that_is_faster_loses_too_much_nothing_is_named(budget: float | None) -> None:
    found = recommend(judged([BASELINE, SLOW, OVER], budget), budget)
    assert found.reason == (
        "nothing within 1 point is faster than the float32 baseline: use the baseline"
    )


@pytest.mark.parametrize("budget", [None, 1.0])
def test_a_drop_without_an_interval_is_not_within_any_budget(budget: float | None) -> None:
    few = Drop(0.1, None, 1, 0, None, "inconclusive", 16)
    found = recommend([BASELINE, replace(PERHAPS, drop=few)], budget)
    assert found.name == "ort-float32"
    assert found.reason.endswith(
        "score drop +0.10 points, too few samples for an interval, 16 more samples needed"
    )
    assert found.budget_met is (None if budget is None else False)


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((0.5, 0.97), "faster"),
        ((0.97, 0.99), "no difference shown"),
        ((0.9, 1.1), "no difference shown"),
        ((1.01, 1.05), "no difference shown"),
        ((1.03, 1.05), "slower"),
    ],
)
def test_speed_verdict(interval: tuple[float, float], verdict: str) -> None:
    assert speed_verdict(*interval) == verdict


def test_a_file_that_destroys_a_part_is_never_recommended() -> None:
    finding = Finding("y", "scores", "3.0 dB of the float network", "cat", "--keep-float cat")
    bad = replace(candidate("ort-int8", (0.5, 0.6)), findings=(finding,))
    slower = candidate("ort-float16", (0.8, 0.9))
    assert recommend([BASELINE, bad], None).name == "ort-float32"
    assert recommend([BASELINE, bad, slower], None).name == "ort-float16"
