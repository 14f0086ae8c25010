"""Intervals and p-values of scores against scipy, brute force, and the probability of tables."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats

from edgedl.runtime.measure.score_intervals import (
    mcnemar_p,
    mean_score,
    paired_drop,
    samples_to_decide,
)


def score_test(lost, won, count, difference):
    """The statistic of the paper, its likelihood maximized by search instead of by formula."""
    low, high = max(0.0, -difference), (1 - difference) / 2

    def unlikely(wins):
        cells = [wins + difference, wins, 1 - 2 * wins - difference]
        return -special.xlogy([lost, won, count - lost - won], np.maximum(cells, 1e-300)).sum()

    found = optimize.minimize_scalar(
        unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
    )
    variance = count * (2 * found.x + difference * (1 - difference))
    return (lost - won - count * difference) / math.sqrt(variance)


@settings(deadline=None, max_examples=50)
@given(st.tuples(*[st.integers(0, 60)] * 4).filter(lambda cells: sum(cells) > 0))
def test_paired_drop_is_what_tangos_test_does_not_reject(cells):
    baseline = np.repeat([1.0, 1.0, 0.0, 0.0], cells)
    candidate = np.repeat([1.0, 0.0, 1.0, 0.0], cells)
    estimate = paired_drop(baseline, candidate)
    _, lost, won, _ = cells
    assert estimate.value == pytest.approx((lost - won) / sum(cells))
    assert -1 <= estimate.lo <= estimate.value <= estimate.hi <= 1
    for end in (estimate.lo, estimate.hi):
        if abs(end) < 1 - 1e-6:
            statistic = score_test(lost, won, sum(cells), end)
            assert abs(statistic) == pytest.approx(stats.norm.ppf(0.975), rel=2e-3)


def test_paired_drop_of_a_published_table():
    # Fagerland, Lydersen, Laake, 2014, table 2: hyper-responsive airways before and after.
    estimate = paired_drop(
        np.repeat([1.0, 0.0, 1.0, 0.0], [1, 7, 1, 12]),
        np.repeat([0.0, 1.0, 1.0, 0.0], [1, 7, 1, 12]),
    )
    found = [round(x, 3) for x in (estimate.value, estimate.lo, estimate.hi)]
    assert found == [-0.286, -0.517, -0.026]


@pytest.mark.parametrize(
    ("lost", "won", "count"),
    [(0.02, 0.01, 500), (0.004, 0.004, 500), (0.15, 0.05, 60), (0, 0, 50), (0.002, 0, 1000)],
)
def test_paired_drop_covers_the_truth(lost, won, count):
    """By the probability of every table, not by drawing some."""
    covered, seen = 0.0, 0.0
    for losses in range(count + 1):
        for wins in range(count + 1 - losses):
            cells = (losses, wins, count - losses - wins)
            probability = stats.multinomial.pmf(cells, count, (lost, won, 1 - lost - won))
            if probability > 1e-7:
                scores = np.repeat([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], cells, axis=0)
                estimate = paired_drop(scores[:, 0], scores[:, 1])
                covered += probability * (estimate.lo <= lost - won <= estimate.hi)
                seen += probability
            elif wins > 40:
                break
        if losses > 60:
            break
    assert seen > 0.999
    assert covered >= 0.935


def test_paired_drop_of_real_scores_is_near_normal_theory():
    rng = np.random.default_rng(5)
    baseline = np.round(rng.normal(0.7, 0.2, 800), 2)
    candidate = baseline - np.round(rng.normal(0.03, 0.1, 800), 2)
    estimate = paired_drop(baseline, candidate)
    reference = stats.ttest_rel(baseline, candidate).confidence_interval(0.95)
    width = reference.high - reference.low
    assert estimate.value == pytest.approx(np.mean(baseline - candidate))
    assert abs(estimate.lo - reference.low) < 0.1 * width
    assert abs(estimate.hi - reference.high) < 0.1 * width


@pytest.mark.slow
def test_paired_drop_of_rare_losses_covers_the_truth():
    rng = np.random.default_rng(8)
    covered = 0
    for _ in range(300):
        baseline = np.r_[0.5, np.ones(99)]
        candidate = baseline - 0.4 * (rng.random(100) < 0.01)
        estimate = paired_drop(baseline, candidate)
        covered += estimate.lo <= 0.004 <= estimate.hi
    assert covered >= 270


def test_paired_drop_of_scores_that_are_all_alike_is_not_certain():
    for scores in (np.r_[0.5, np.ones(19)], np.full(20, 0.5)):
        estimate = paired_drop(scores, scores)
        assert estimate.lo < estimate.value == 0 < estimate.hi


def test_paired_drop_uses_the_pairing():
    rng = np.random.default_rng(6)
    baseline = (rng.random(2000) < 0.8).astype(float)
    candidate = baseline.copy()
    candidate[:20] = 1 - candidate[:20]
    paired = paired_drop(baseline, candidate)
    shuffled = paired_drop(baseline, rng.permutation(candidate))
    assert paired.value == pytest.approx(shuffled.value)
    assert (paired.hi - paired.lo) < 0.3 * (shuffled.hi - shuffled.lo)


@settings(deadline=None, max_examples=50)
@given(hits=st.integers(0, 200), misses=st.integers(0, 200))
def test_mean_score_is_wilson(hits, misses):
    if hits + misses == 0:
        return
    estimate = mean_score(np.repeat([1.0, 0.0], [hits, misses]))
    reference = stats.binomtest(hits, hits + misses).proportion_ci(0.95, method="wilson")
    assert estimate.value == pytest.approx(hits / (hits + misses))
    np.testing.assert_allclose([estimate.lo, estimate.hi], reference, atol=1e-12)


def test_mean_of_real_scores_is_near_normal_theory():
    scores = np.round(np.random.default_rng(7).gamma(2.0, 0.2, 1000), 2)
    estimate = mean_score(scores)
    low, high = stats.t.interval(0.95, 999, scores.mean(), stats.sem(scores))
    assert estimate.value == pytest.approx(scores.mean())
    assert abs(estimate.lo - low) < 0.1 * (high - low)
    assert abs(estimate.hi - high) < 0.1 * (high - low)


@settings(deadline=None, max_examples=60)
@given(lost=st.integers(0, 400), won=st.integers(0, 400))
def test_mcnemar_against_scipy(lost, won):
    expected = stats.binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert mcnemar_p(lost, won) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_p(won, lost) == mcnemar_p(lost, won)


@pytest.mark.parametrize("limit", [0.012, 0.015, 0.03])
@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_as_many_more_samples_decide_if_nothing_changes(limit: float, confidence: float) -> None:
    """Repeat what was seen until there are that many: the interval must end at the limit."""
    baseline, candidate = np.ones(400), np.r_[np.zeros(8), np.ones(392)]
    more = samples_to_decide(baseline, candidate, limit, confidence)
    assert more is not None

    def decided(count: int) -> bool:
        lost = round(0.02 * count)
        found = paired_drop(
            np.ones(count), np.r_[np.zeros(lost), np.ones(count - lost)], confidence=confidence
        )
        return found.hi <= limit or found.lo > limit

    assert not decided(400)
    assert decided(round(1.1 * (400 + more)))
    assert not decided(round(0.9 * (400 + more)))


@pytest.mark.parametrize(
    ("lost", "count", "points"), [(1, 4, 25.0), (7, 1000, 0.7), (11, 1000, 1.1), (14, 1000, 1.4)]
)
def test_no_number_of_samples_tells_a_drop_from_itself(
    lost: int, count: int, points: float
) -> None:
    """Limits come as points over 100, which is not always the same float as lost / count."""
    candidate = np.r_[np.zeros(lost), np.ones(count - lost)]
    assert samples_to_decide(np.ones(count), candidate, points / 100) is None


def test_more_confidence_is_a_wider_interval() -> None:
    rng = np.random.default_rng(0)
    binary = (rng.random(300) > 0.1).astype(float), (rng.random(300) > 0.2).astype(float)
    graded = rng.random(300), rng.random(300)
    for pair in (binary, graded):
        widths = [
            (e := paired_drop(*pair, confidence=c)).hi - e.lo for c in (0.5, 0.9, 0.95, 0.999)
        ]
        assert widths == sorted(widths)
        assert paired_drop(*pair) == paired_drop(*pair, confidence=0.95)
