"""Intervals and p-values against scipy, brute force, MLPerf's table, and simulated truth."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats

from edgedl.runtime.measure.statistics import (
    block_median,
    certified_percentile,
    mcnemar_p,
    mean_score,
    paired_drop,
    paired_ratio,
    required_samples,
    samples_to_decide,
)


def blocks(rng, ratio, count=40, calls=25):
    """Simulate two arms on a machine whose speed wanders from block to block, with late calls."""
    mood = np.exp(np.cumsum(rng.normal(0, 0.02, count)))[:, None]
    noise = 1 + rng.exponential(0.03, (2, count, calls))
    late = rng.random((2, count, calls)) < 0.02
    times = 1e6 * mood * noise * np.where(late, 5.0, 1.0)
    return times[0], times[1] * ratio


@pytest.mark.parametrize("ratio", [1.0, 1.04, 0.3])
def test_paired_ratio_covers_the_truth(ratio):
    rng = np.random.default_rng(1)
    found = [paired_ratio(*blocks(rng, ratio), seed=i) for i in range(30)]
    covered = sum(e.lo <= ratio <= e.hi for e in found)
    # 30 intervals of 95 %: fewer than 26 happen once in 300 runs; the seed is fixed.
    assert covered >= 26
    assert np.median([e.hi / e.lo - 1 for e in found]) < 0.02
    assert abs(np.mean([e.value for e in found]) / ratio - 1) < 0.005


def test_paired_ratio_sees_what_the_drift_hides():
    heating_up = np.linspace(1.0, 1.5, 40)[:, None]
    baseline, candidate = (x * heating_up for x in blocks(np.random.default_rng(2), 1.04))
    unpaired = stats.mannwhitneyu(np.median(baseline, axis=1), np.median(candidate, axis=1))
    estimate = paired_ratio(baseline, candidate)
    assert unpaired.pvalue > 0.05
    assert 1.02 < estimate.lo < 1.04 < estimate.hi < 1.06


@settings(deadline=None, max_examples=10)
@given(factor=st.floats(0.01, 100), seed=st.integers(0, 1000))
def test_paired_ratio_scales_and_inverts(factor, seed):
    baseline, candidate = blocks(np.random.default_rng(seed), 1.2, count=11, calls=5)
    one = paired_ratio(baseline, candidate)
    scaled = paired_ratio(baseline, candidate * factor)
    np.testing.assert_allclose(
        [scaled.value, scaled.lo, scaled.hi],
        np.array([one.value, one.lo, one.hi]) * factor,
        rtol=1e-9,
    )
    assert paired_ratio(candidate, baseline).value == pytest.approx(1 / one.value)


def test_block_median_against_scipy():
    rng = np.random.default_rng(3)
    latency, _ = blocks(rng, 1.0, count=60)
    estimate = block_median(latency)
    medians = np.median(latency, axis=1)
    reference = stats.bootstrap(
        (medians,), np.median, n_resamples=2000, method="percentile", rng=rng
    ).confidence_interval
    assert estimate.value == np.median(medians)
    width = reference.high - reference.low
    assert abs(estimate.lo - reference.low) < 0.2 * width
    assert abs(estimate.hi - reference.high) < 0.2 * width


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


@pytest.mark.parametrize(
    ("late", "row"),
    [
        (0, (7, 44, 90, 459)),
        (1, (11, 64, 130, 662)),
        (2, (14, 81, 165, 838)),
        (10, (35, 197, 398, 2010)),
    ],
)
def test_required_samples_are_mlperfs_table(late, row):
    assert tuple(required_samples(p, late) for p in (0.5, 0.9, 0.95, 0.99)) == row


@settings(deadline=None, max_examples=25)
@given(percentile=st.floats(0.3, 0.99), late=st.integers(0, 20))
def test_required_samples_against_scipy(percentile, late):
    counts = np.arange(late + 1, 4000 + 200 * late)
    enough = stats.binom.cdf(late, counts, 1 - percentile) <= 0.01
    assert required_samples(percentile, late) == counts[enough.argmax()]


@settings(deadline=None, max_examples=40)
@given(count=st.integers(2, 3000), percentile=st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_certified_percentile_against_brute_force(count, percentile):
    samples = np.random.default_rng(count).permutation(count).astype(float)
    late = np.arange(1, count)
    allowed = late[stats.binom.cdf(late, count, 1 - percentile) <= 0.01]
    expected = float(count - allowed.max()) if allowed.size else None
    assert certified_percentile(samples, percentile) == expected


@pytest.mark.parametrize("percentile", [0.5, 0.9, 0.95, 0.99])
def test_one_sample_too_few_certifies_nothing(percentile):
    needed = required_samples(percentile)
    samples = np.arange(needed, dtype=float)
    assert certified_percentile(samples[:-1], percentile) is None
    # The second largest: one call may be slower than the bound.
    assert certified_percentile(samples, percentile) == needed - 1


def test_certified_percentile_is_an_upper_bound_99_times_in_100():
    draws = np.random.default_rng(8).exponential(1.0, (800, 4, 50))
    truth = -math.log(0.1)
    held = np.mean([certified_percentile(d, 0.9) >= truth for d in draws])
    assert held >= 0.985


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
