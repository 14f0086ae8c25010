"""What a file loses of the baseline's score, judged."""

import math

import numpy as np

from edgedl.runtime.measure.estimate import CONFIDENCE
from edgedl.runtime.measure.score_intervals import mcnemar_p, paired_drop, samples_to_decide
from edgedl.runtime.task.task import Scores
from edgedl.tools.bench.recommend import DEFAULT_MAX_DROP_PP, drop_verdict
from edgedl.tools.bench.result import Drop, interval


def drop_record(
    baseline: Scores, candidate: Scores, max_drop_pp: float | None, confidence: float = CONFIDENCE
) -> Drop:
    """Return the drop between scores [N] of the same samples, judged against a budget."""
    if baseline is candidate:
        verdict = drop_verdict(0.0, 0.0, max_drop_pp)
        return Drop(pp=0.0, ci95=(0.0, 0.0), lost=0, won=0, p_value=1.0, verdict=verdict)
    estimate = paired_drop(baseline, candidate)
    lost, won = int((candidate < baseline).sum()), int((candidate > baseline).sum())
    binary = set(np.unique(baseline)) | set(np.unique(candidate)) <= {0.0, 1.0}
    lo, hi = interval(paired_drop(baseline, candidate, confidence=confidence), 100)
    more = None
    if max_drop_pp is not None:
        if lo <= max_drop_pp < hi:
            more = samples_to_decide(baseline, candidate, max_drop_pp / 100, confidence)
    elif 100 * estimate.lo <= DEFAULT_MAX_DROP_PP < 100 * estimate.hi:
        # The recommendation has a limit all the same; it goes by the 95 % interval.
        more = samples_to_decide(baseline, candidate, DEFAULT_MAX_DROP_PP / 100)
    return Drop(
        pp=estimate.value * 100,
        ci95=None if math.isinf(estimate.hi) else interval(estimate, 100),
        lost=lost,
        won=won,
        p_value=mcnemar_p(lost, won) if binary else None,
        verdict=drop_verdict(lo, hi, max_drop_pp),
        more_samples=more,
    )
