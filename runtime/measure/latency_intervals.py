"""Intervals of latencies: over loads of a file, not over calls."""

import math

import numpy as np

from edgedl.runtime.measure.estimate import Estimate, Floats, binomial_cdf, student_quantile

# Rounds of one load are taken together in so many groups.
GROUPS = 10
# Fewer late calls than this certify nothing, whatever the percentile (MLPerf's floor).
LATE_CALLS_FLOOR = 1


def paired_ratio(baseline_ns: Floats, candidate_ns: Floats) -> Estimate:
    """Return candidate latency over baseline latency, from interleaved blocks.

    Each pair of blocks gives one log-ratio of medians, each load of the two files the median of its
    own. The ratio is the mean over loads, its interval Student's: two loads of one file differ by
    more than their calls do, and so do spells of many blocks in which a thread pool is slow.
    A bootstrap over calls or blocks sees neither; one over ten loads is too narrow.

    Args:
        baseline_ns: [loads, blocks, calls], or [blocks, calls]. Blocks of a single load are taken
            together in at most ``GROUPS`` groups, in their order, which stand for loads.
        candidate_ns: the same, with calls of its own.

    Sources: Kalibera, Jones, "Rigorous benchmarking in reasonable time", ISMM 2013, section 6 (the
    highest level that varies is what counts); Schmeiser, "Batch size effects in the analysis of
    simulation output", Operations Research 30, 1982 (groups).

    >>> paired_ratio(np.full((10, 4, 5), 2.0), np.full((10, 4, 5), 1.0)).value
    0.5
    """
    blocks = np.log(np.median(candidate_ns, axis=-1)) - np.log(np.median(baseline_ns, axis=-1))
    return _mean_over_loads(blocks)


def typical_latency(latency_ns: Floats) -> Estimate:
    """Return the mean over loads of their median block medians, in the unit given.

    Args:
        latency_ns: [loads, blocks, calls], or [blocks, calls]; as ``paired_ratio`` takes them.
    """
    return _mean_over_loads(np.log(np.median(latency_ns, axis=-1)))


def _mean_over_loads(logs: Floats) -> Estimate:
    """Return the geometric mean, with its interval, of logs [loads, blocks] or [blocks]."""
    groups = list(np.atleast_2d(logs))
    if len(groups) == 1:
        groups = np.array_split(groups[0], min(GROUPS, len(groups[0])))
    medians = np.array([np.median(group) for group in groups])
    mean, freedom = float(medians.mean()), len(medians) - 1
    if freedom == 0:
        return Estimate(math.exp(mean), 0.0, math.inf)
    half = student_quantile(freedom) * float(medians.std(ddof=1)) / math.sqrt(len(medians))
    return Estimate(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def required_samples(percentile: float, late: int = LATE_CALLS_FLOOR) -> int:
    """Return how many calls certify a percentile at 99 % confidence with ``late`` slower ones.

    Source: MLPerf Inference rules, early stopping; loadgen/early_stopping.cc.

    >>> required_samples(0.90), required_samples(0.99)
    (64, 662)
    """
    count = late + 1
    while binomial_cdf(late, count, 1 - percentile) > 0.01:
        count += 1
    return count


def certified_percentile(samples: Floats, percentile: float) -> float | None:
    """Return an upper 99 % confidence bound of a percentile, or None with too few samples."""
    count = samples.size
    if count < required_samples(percentile):
        return None
    late = LATE_CALLS_FLOOR
    step = 1 << 16
    while step:
        if late + step < count and binomial_cdf(late + step, count, 1 - percentile) <= 0.01:
            late += step
        else:
            step >>= 1
    return float(np.sort(samples, axis=None)[count - late])
