"""Decide which artifact to use, from measured intervals only."""

import math
from collections.abc import Callable, Collection, Sequence

from edgedl.runtime.precision import FLOAT32, PRECISIONS
from edgedl.runtime.wording import counted, points
from edgedl.tools.bench.entries import PARENT
from edgedl.tools.bench.result import (
    Candidate,
    Drop,
    DropVerdict,
    Recommendation,
    Speedup,
    SpeedVerdict,
)

DEFAULT_MAX_DROP_PP = 1.0
# Ratios closer to 1 than this do not matter in practice.
EQUIVALENCE = 0.02
# A smaller file may take this much longer than the fastest one.
ALIKE = 0.05
# Nor do drops smaller than this, in points: a rounding of floats can be certain and means nothing.
MEANINGLESS_DROP_PP = 0.01


def speed_verdict(lo: float, hi: float) -> SpeedVerdict:
    """Judge a latency ratio by its interval.

    >>> speed_verdict(0.4, 0.5), speed_verdict(0.97, 0.99)
    ('faster', 'no difference shown')
    """
    if hi < 1 - EQUIVALENCE:
        return "faster"
    return "slower" if lo > 1 + EQUIVALENCE else "no difference shown"


def drop_verdict(lo: float, hi: float, max_drop_pp: float | None) -> DropVerdict:
    """Judge a score drop in points by its interval, against a budget if there is one.

    An infinite interval is that of too few samples. Without a budget a drop or a gain must be
    larger than ``MEANINGLESS_DROP_PP``.

    >>> drop_verdict(-0.1, 0.2, None), drop_verdict(-0.1, 0.2, 0.1), drop_verdict(-0.1, 0.2, 0.5)
    ('no drop shown', 'inconclusive', 'within budget')
    >>> drop_verdict(0.02, 0.03, None), drop_verdict(2e-11, 3e-11, None)
    ('drop', 'no drop shown')
    """
    if max_drop_pp is not None:
        if hi <= max_drop_pp:
            return "within budget"
        return "over budget" if lo > max_drop_pp else "inconclusive"
    if math.isinf(hi):
        return "inconclusive"
    if lo > MEANINGLESS_DROP_PP:
        return "drop"
    return "gain" if hi < -MEANINGLESS_DROP_PP else "no drop shown"


def recommend(
    candidates: Sequence[Candidate],
    max_drop_pp: float | None,
    made: Collection[str] = (),
    may_be_slower: Callable[[Candidate, Candidate], bool] | None = None,
) -> Recommendation:
    """Return the fastest artifact whose drop is certainly within the budget.

    A smaller one wins where it is about as fast with certainty, except that no file wins that is
    slower than the float32 file of its own runtime or that destroys a part of an output. The first
    thread count decides. The baseline is always within the budget.

    Args:
        candidates: measured artifacts, the baseline first.
        max_drop_pp: budget in points; None stands for 1.0 and no verdict on it.
        made: names of the precisions of all files, those that do not run here included.
        may_be_slower: says whether the first file may take more than ``ALIKE`` longer than the
            second; None goes by their intervals against the baseline.
    """
    chosen = candidates[0]
    whole = [c for c in candidates if not c.findings]
    faster = [c for c in whole if _within(c.drop, max_drop_pp) and _is_faster(c.speedup[0])]
    if faster:
        fastest = min(faster, key=lambda c: c.speedup[0].ratio)
        slower = may_be_slower or _is_beyond
        rivals = [c for c in faster if c is fastest or not slower(c, fastest)]
        chosen = min(rivals, key=lambda c: (c.size_bytes, c.speedup[0].ratio))
    return Recommendation(
        name=chosen.name,
        reason=_reason(chosen, candidates, max_drop_pp),
        notes=_notes(candidates),
        budget_met=None if max_drop_pp is None else _budget_met(candidates, made),
    )


def _is_beyond(one: Candidate, other: Candidate) -> bool:
    own, its = one.speedup[0], other.speedup[0]
    return own.ci95[0] > its.ci95[1] or own.ratio > (1 + ALIKE) * its.ratio


def _is_faster(speed: Speedup) -> bool:
    """Say whether a file is faster than the baseline, and not slower than its own runtime's."""
    own = speed.same_runtime_ci95
    slower = own is not None and speed_verdict(*own) == "slower"
    return speed_verdict(*speed.ci95) == "faster" and not slower


def _within(drop: Drop, max_drop_pp: float | None) -> bool:
    """Say whether a drop is certainly within the budget; its verdict knows the confidence."""
    if max_drop_pp is None:
        return drop.ci95 is not None and drop.ci95[1] <= DEFAULT_MAX_DROP_PP
    return drop.within_budget


def _undecided(drop: Drop, max_drop_pp: float | None) -> bool:
    """Say whether a drop may be within the budget or over it."""
    if max_drop_pp is not None:
        return drop.verdict == "inconclusive"
    return drop.ci95 is None or drop.ci95[0] <= DEFAULT_MAX_DROP_PP < drop.ci95[1]


def _budget_met(candidates: Sequence[Candidate], made: Collection[str]) -> bool:
    """Say whether a file of the strongest precision made is certainly within the budget."""
    own = [c for c in candidates if not c.name.startswith(PARENT)]
    every = {c.precision for c in own}.union(made)
    strongest = next(name for name in PRECISIONS if name in every)
    return any(c.precision == strongest and c.drop.within_budget and not c.findings for c in own)


def _reason(chosen: Candidate, candidates: Sequence[Candidate], max_drop_pp: float | None) -> str:
    baseline = candidates[0]
    if chosen.name == baseline.name:
        return _why_the_baseline(candidates, max_drop_pp)
    speed = chosen.speedup[0]
    return (
        f"{describe_speed(speed.ratio)} {baseline.name} with {speed.threads} thread(s) (latency "
        f"ratio {speed.ratio:.3f} [{speed.ci95[0]:.3f}, {speed.ci95[1]:.3f}]), "
        f"{describe_size(chosen.size_bytes / baseline.size_bytes)}, {describe_drop(chosen.drop)}"
    )


def _why_the_baseline(candidates: Sequence[Candidate], max_drop_pp: float | None) -> str:
    """Say that nothing fits, and what might if there were more samples."""
    limit = counted(allowed_drop(max_drop_pp), "point")
    fastest = fastest_undecided(candidates, max_drop_pp)
    if fastest is None:
        return f"nothing within {limit} is faster than the float32 baseline: use the baseline"
    more = fastest.drop.more_samples
    return (
        f"nothing faster than the float32 baseline is certainly within {limit}: use the baseline; "
        f"{fastest.name} is {describe_speed(fastest.speedup[0].ratio)} it and may be within the "
        f"limit, {describe_drop(fastest.drop)}, {decided_by(more)}"
    )


def allowed_drop(max_drop_pp: float | None) -> float:
    """Return the largest drop, in points, of a file that is recommended."""
    return DEFAULT_MAX_DROP_PP if max_drop_pp is None else max_drop_pp


def fastest_undecided(
    candidates: Sequence[Candidate], max_drop_pp: float | None
) -> Candidate | None:
    """Return the fastest file that may or may not be within the budget, as far as samples show."""
    perhaps = [
        c
        for c in candidates
        if not c.findings and _undecided(c.drop, max_drop_pp) and _is_faster(c.speedup[0])
    ]
    return min(perhaps, key=lambda c: c.speedup[0].ratio, default=None)


def decided_by(more: int | None) -> str:
    """Say how many more samples should decide what is inconclusive.

    >>> decided_by(1), decided_by(None)
    ('1 more sample needed', 'no number of samples will decide it in practice')
    """
    if more is None:
        return "no number of samples will decide it in practice"
    return f"{counted(more, 'more sample')} needed"


def describe_speed(ratio: float) -> str:
    """Return a latency ratio in words.

    >>> describe_speed(0.5), describe_speed(1.25)
    ('2.00x faster than', '1.25x slower than')
    """
    return f"{1 / ratio:.2f}x faster than" if ratio <= 1 else f"{ratio:.2f}x slower than"


def describe_size(ratio: float) -> str:
    """Return a size ratio in words.

    >>> describe_size(0.25), describe_size(3.0), describe_size(1.0)
    ('4.0x smaller', '3.0x larger', 'as large')
    """
    if ratio == 1:
        return "as large"
    return f"{1 / ratio:.1f}x smaller" if ratio <= 1 else f"{ratio:.1f}x larger"


def describe_drop(drop: Drop) -> str:
    """Return a drop in words, with its interval in points."""
    if drop.ci95 is None:
        return f"score drop {points(drop.pp)} points, too few samples for an interval"
    lo, hi = drop.ci95
    return f"score drop {points(drop.pp)} points [{points(lo)}, {points(hi)}]"


def _notes(candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """Say of every reduced file that is not faster than its own runtime's float32.

    Of a pruned network's float32 file it says how much of the saving in arithmetic time shows; of
    one with weights that repeat, its size once compressed, and its time. Of any file it says which
    operators the runtime leaves to something else.
    """
    notes = []
    for candidate in candidates:
        speed = candidate.speedup[0]
        if candidate.cold_start is not None:
            notes += [f"{candidate.name}: {text}" for text in candidate.cold_start.fallbacks]
        if candidate.zipped_bytes is not None:
            notes.append(_on_repetition(candidate))
        fewer = candidate.theoretical_speedup
        if speed.same_runtime_ci95 is None or speed.same_runtime_ratio is None:
            continue
        if candidate.precision == FLOAT32.name:
            if fewer is not None:
                why = f"; {candidate.saving_lost}" if candidate.saving_lost else ""
                notes.append(
                    f"{candidate.name} has {fewer:.2f}x fewer multiply-accumulates and is "
                    f"{describe_speed(speed.same_runtime_ratio)} its parent on the same runtime"
                    + why
                )
            continue
        if speed_verdict(*speed.same_runtime_ci95) != "faster":
            lo, hi = speed.same_runtime_ci95
            smaller = candidate.size_bytes < _float32_size(candidate, candidates)
            is_what = "smaller, not faster" if smaller else "neither smaller nor faster"
            notes.append(
                f"{candidate.name} is {is_what}: {speed.same_runtime_ratio:.2f} "
                f"[{lo:.2f}, {hi:.2f}] of float32 on the same runtime"
            )
    return tuple(notes)


def _float32_size(candidate: Candidate, candidates: Sequence[Candidate]) -> int:
    """Return the size in bytes of the float32 file that a file is timed against."""
    bundle = candidate.name.rpartition(":")[0]
    own = [
        c
        for c in candidates
        if (c.backend, c.precision) == (candidate.backend, FLOAT32.name)
        and (c.name.startswith(PARENT) or c.name.rpartition(":")[0] == bundle)
    ]
    own.sort(key=lambda c: not c.name.startswith(PARENT))
    return (own or candidates)[0].size_bytes


def _on_repetition(candidate: Candidate) -> str:
    size, zipped = candidate.size_bytes, candidate.zipped_bytes or 0
    gain = (
        f"{candidate.name}: {candidate.repeated_weights}, which saves space in a zip file "
        f"({zipped / 1000:.1f} KB instead of {size / 1000:.1f})"
    )
    interval = candidate.speedup[0].same_runtime_ci95
    if candidate.precision != FLOAT32.name or interval is None:
        return gain
    lo, hi = interval
    timed = f"[{lo:.2f}, {hi:.2f}] of its parent's time on the same runtime"
    if speed_verdict(lo, hi) == "faster":
        return f"{gain}, and it is faster: {timed}"
    return f"{gain}, but it is not faster: {timed}"
