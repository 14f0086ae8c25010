"""Intervals of scores: of one network, and of what another loses on the same samples."""

import math
from collections.abc import Callable

import numpy as np

from edgedl.runtime.measure.estimate import (
    CONFIDENCE,
    Estimate,
    Floats,
    binomial_cdf,
    normal_quantile,
)

RESAMPLES = 4000
Z95 = normal_quantile(CONFIDENCE)
# Fewer scores than this that are not 0 or 1 have no interval; ``paired_drop`` says why.
FEWEST_GRADED = 20
# Nobody collects more samples than this to decide a question.
MOST_SAMPLES = 10_000_000


def paired_drop(
    baseline: Floats, candidate: Floats, seed: int = 0, confidence: float = CONFIDENCE
) -> Estimate:
    """Return the mean of ``baseline - candidate`` over the same samples, with its interval.

    For scores of 0 and 1 the interval is Tango's score interval, which stays honest when few or no
    samples flip, and where they flip one way only. Else it is a percentile bootstrap over samples,
    and over half a sample that loses and half a one that wins as much as any does (or as scores
    differ, where none does): without them, samples that are all alike would prove what they do
    not.

    A bootstrap knows no loss that it has not seen, and with few samples has not seen the large
    ones. Fewer than ``FEWEST_GRADED`` have the interval from minus to plus infinity: of 95 %
    intervals of exponential differences 92 % cover the mean with 20 samples, 76 % with 4 and 37 %
    with 1; a loss that one sample in five has is not seen once in 87 times with 20, two times in
    five with 4.

    Source: Tango, "Equivalence test and confidence interval for the difference in proportions for
    the paired-sample design", Statistics in Medicine 17, 1998, section 4.

    >>> round(paired_drop(np.ones(1000), np.ones(1000)).hi, 5)
    0.00383
    """
    difference = baseline - candidate
    value = float(difference.mean())
    if _is_binary(baseline, candidate):
        lost, won = int((difference > 0).sum()), int((difference < 0).sum())
        return _matched_proportions(lost, won, len(difference), normal_quantile(confidence))
    if len(difference) < FEWEST_GRADED:
        return Estimate(value, -math.inf, math.inf)
    values, counts = np.unique(difference, return_counts=True)
    most = _largest_loss(baseline, candidate)
    values = np.append(values, [-most, most])
    shares = np.append(counts.astype(np.float64), [0.5, 0.5])
    lo, hi = _bootstrap_mean(values, shares, seed, confidence)
    return Estimate(value, min(value, lo), max(value, hi))


def _largest_loss(baseline: Floats, candidate: Floats) -> float:
    """Return how much a sample may lose: as any does, or as scores differ where none does."""
    every = np.concatenate([baseline, candidate])
    most = float(np.abs(baseline - candidate).max())
    return most or float(np.ptp(every)) or float(np.abs(every).max())


def samples_to_decide(
    baseline: Floats, candidate: Floats, limit: float, confidence: float = CONFIDENCE
) -> int | None:
    """Return how many more samples should show on which side of a limit the mean drop is.

    The interval must shrink until it ends at the limit, with the mean and the spread as seen so
    far. None where the mean is at the limit, or as good as there: no number of samples up to
    ``MOST_SAMPLES`` would show it.

    For scores of 0 and 1 it is the interval of ``paired_drop``; else the sample size of an interval
    of a given width, its pseudo-sample keeping the spread above 0, and no fewer than have an
    interval at all.

    >>> samples_to_decide(np.ones(100), np.r_[np.zeros(1), np.ones(99)], 0.02)
    653
    """
    difference = baseline - candidate
    count, mean, z = len(difference), float(difference.mean()), normal_quantile(confidence)
    distance = abs(limit - mean)
    binary = _is_binary(baseline, candidate)
    missing = 0 if binary else max(0, FEWEST_GRADED - count)
    if math.isclose(limit, mean, rel_tol=1e-9, abs_tol=1e-12):
        return missing or None
    if not binary:
        squares = float((difference**2).sum()) + _largest_loss(baseline, candidate) ** 2
        variance = squares / (count + 1) - (mean * count / (count + 1)) ** 2
        total = variance * (z / distance) ** 2
        if total > MOST_SAMPLES:
            return missing or None
        return max(1, missing, math.ceil(total) - count)
    lost, won = float((difference > 0).mean()), float((difference < 0).mean())

    def decides(total: int) -> bool:
        found = _matched_proportions(lost * total, won * total, total, z)
        return found.hi <= limit if mean < limit else found.lo > limit

    few, many = count, 2 * count
    while not decides(many):
        if many > MOST_SAMPLES:
            return None
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if decides(middle) else (middle, many)
    return many - count


def _bootstrap_mean(
    values: Floats, counts: Floats, seed: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Resample the mean of a sample given as distinct values and how often each occurs."""
    rng, total = np.random.default_rng(seed), round(counts.sum())
    means = np.array(
        [rng.multinomial(total, counts / total) @ values / total for _ in range(RESAMPLES)]
    )
    lo, hi = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(lo), float(hi)


def _is_binary(*scores: Floats) -> bool:
    return all(set(np.unique(s)) <= {0.0, 1.0} for s in scores)


def _matched_proportions(lost: float, won: float, count: int, z: float) -> Estimate:
    """Return (lost - won) / count with the differences that a score test at z would not reject."""
    value = (lost - won) / count

    def rejected(difference: float) -> bool:
        # The most likely share of wins if this were the true difference.
        slope = (2 * count - lost + won) * difference - lost - won
        constant = won * difference * (1 - difference)
        wins = (math.sqrt(max(0.0, slope**2 + 8 * count * constant)) - slope) / (4 * count)
        variance = count * (2 * wins + difference * (1 - difference))
        return (lost - won - count * difference) ** 2 > z**2 * max(variance, 0.0)

    return Estimate(value, _edge(rejected, value, -1.0), _edge(rejected, value, 1.0))


def _edge(rejected: Callable[[float], bool], inside: float, outside: float) -> float:
    """Return where rejection begins between two values, to 1e-12."""
    if not rejected(outside):
        return outside
    while abs(outside - inside) > 1e-12:
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if rejected(middle) else (middle, outside)
    return inside


def mean_score(scores: Floats, seed: int = 0) -> Estimate:
    """Return the mean of per-sample scores: Wilson's interval for 0/1 scores, else bootstrap.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22, 1927.
    """
    mean, count = float(scores.mean()), len(scores)
    if set(np.unique(scores)) <= {0.0, 1.0}:
        scale = 1 + Z95**2 / count
        center = (mean + Z95**2 / (2 * count)) / scale
        half = Z95 / scale * math.sqrt(mean * (1 - mean) / count + Z95**2 / (4 * count**2))
        return Estimate(mean, min(mean, center - half), max(mean, center + half))
    values, counts = np.unique(scores, return_counts=True)
    lo, hi = _bootstrap_mean(values, counts.astype(np.float64), seed)
    return Estimate(mean, lo, hi)


def mcnemar_p(lost: int, won: int) -> float:
    """Return the exact two-sided p-value that flips go both ways equally often.

    Source: McNemar, "Note on the sampling error of the difference between correlated
    proportions", 1947; the exact binomial form.

    >>> mcnemar_p(0, 0), round(mcnemar_p(1, 9), 4)
    (1.0, 0.0215)
    """
    return min(1.0, 2 * binomial_cdf(min(lost, won), lost + won, 0.5))
