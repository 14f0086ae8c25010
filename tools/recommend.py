"""Decide which artifact to use, from measured intervals only."""

from collections.abc import Collection, Sequence

from edgedl.runtime.manifest import Precision
from edgedl.tools.entries import PARENT
from edgedl.tools.result import (
    Candidate,
    Drop,
    DropVerdict,
    Recommendation,
    Speedup,
    SpeedVerdict,
)

DEFAULT_MAX_DROP_PP = 1.0
# Precisions by how much they take off a network, the most first.
STRONGEST = (
    "int8",
    "fp8",
    "int8_int16",
    "dynamic_int8",
    "int4_weights",
    "int8_weights",
    "float16",
    "bfloat16",
    "float32",
)
# Ratios closer to 1 than this are no difference to anybody.
EQUIVALENCE = 0.02


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

    >>> drop_verdict(-0.1, 0.2, None), drop_verdict(-0.1, 0.2, 0.1), drop_verdict(-0.1, 0.2, 0.5)
    ('no drop shown', 'inconclusive', 'within budget')
    """
    if max_drop_pp is not None:
        if hi <= max_drop_pp:
            return "within budget"
        return "over budget" if lo > max_drop_pp else "inconclusive"
    if lo > 0:
        return "drop"
    return "gain" if hi < 0 else "no drop shown"


def recommend(
    candidates: Sequence[Candidate],
    max_drop_pp: float | None,
    made: Collection[Precision] = (),
) -> Recommendation:
    """Return the fastest artifact whose drop is certainly within the budget.

    Between artifacts whose speed cannot be told apart the smaller one wins, except that no file
    wins that is slower than the float32 file of its own runtime. The first thread count decides.
    The baseline is always within the budget.

    Args:
        candidates: measured artifacts, the baseline first.
        max_drop_pp: budget in points; None stands for 1.0 and no verdict on it.
        made: precisions of all files, those that do not run here included.
    """
    limit = DEFAULT_MAX_DROP_PP if max_drop_pp is None else max_drop_pp
    chosen = candidates[0]
    faster = [c for c in candidates if _within(c.drop, max_drop_pp) and _is_faster(c.speedup[0])]
    if faster:
        fastest = min(faster, key=lambda c: c.speedup[0].ratio)
        rivals = [c for c in faster if c.speedup[0].ci95[0] <= fastest.speedup[0].ci95[1]]
        chosen = min(rivals, key=lambda c: (c.size_bytes, c.speedup[0].ratio))
    return Recommendation(
        name=chosen.name,
        reason=_reason(chosen, candidates[0], limit),
        notes=_notes(candidates),
        budget_met=None if max_drop_pp is None else _budget_met(candidates, made),
    )


def _is_faster(speed: Speedup) -> bool:
    """Say whether a file is faster than the baseline, and not slower than its own runtime's."""
    own = speed.same_runtime_ci95
    slower = own is not None and speed_verdict(*own) == "slower"
    return speed_verdict(*speed.ci95) == "faster" and not slower


def _within(drop: Drop, max_drop_pp: float | None) -> bool:
    """Say whether a drop is certainly within the budget; its verdict knows the confidence."""
    if max_drop_pp is None:
        return drop.ci95[1] <= DEFAULT_MAX_DROP_PP
    return drop.verdict == "within budget"


def _budget_met(candidates: Sequence[Candidate], made: Collection[Precision]) -> bool:
    """Say whether a file of the strongest precision made is certainly within the budget."""
    own = [c for c in candidates if not c.name.startswith(PARENT)]
    every = {c.precision for c in own}.union(made)
    strongest = next(p for p in STRONGEST if p in every)
    return any(c.precision == strongest and c.drop.verdict == "within budget" for c in own)


def _reason(chosen: Candidate, baseline: Candidate, limit: float) -> str:
    if chosen.name == baseline.name:
        return f"nothing within {limit:g} points is faster than the float32 baseline: keep it"
    speed = chosen.speedup[0]
    return (
        f"{describe_speed(speed.ratio)} {baseline.name} with {speed.threads} thread(s) (latency "
        f"ratio {speed.ratio:.3f} [{speed.ci95[0]:.3f}, {speed.ci95[1]:.3f}]), "
        f"{describe_size(chosen.size_bytes / baseline.size_bytes)}, {describe_drop(chosen.drop)}"
    )


def describe_speed(ratio: float) -> str:
    """Return a latency ratio in words.

    >>> describe_speed(0.5), describe_speed(1.25)
    ('2.00x faster than', '1.25x slower than')
    """
    return f"{1 / ratio:.2f}x faster than" if ratio <= 1 else f"{ratio:.2f}x slower than"


def describe_size(ratio: float) -> str:
    """Return a size ratio in words.

    >>> describe_size(0.25), describe_size(3.0)
    ('4.0x smaller', '3.0x larger')
    """
    return f"{1 / ratio:.1f}x smaller" if ratio <= 1 else f"{ratio:.1f}x larger"


def describe_drop(drop: Drop) -> str:
    """Return a drop in words, with its interval in points."""
    lo, hi = drop.ci95
    return f"score drop {drop.pp:+.2f} points [{lo:+.2f}, {hi:+.2f}]"


def _notes(candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """Say of every reduced file that is not faster than its own runtime's float32.

    Of a pruned network's float32 file it says how much of the saving in arithmetic time shows; of
    one with weights that repeat, its size once compressed, and its time.
    """
    notes = []
    for candidate in candidates:
        speed = candidate.speedup[0]
        if candidate.zipped_bytes is not None:
            notes.append(_on_repetition(candidate))
        fewer = candidate.theoretical_speedup
        if speed.same_runtime_ci95 is None or speed.same_runtime_ratio is None:
            continue
        if candidate.precision == "float32":
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
            notes.append(
                f"{candidate.name} is smaller, not faster: {speed.same_runtime_ratio:.2f} "
                f"[{lo:.2f}, {hi:.2f}] of float32 on the same runtime"
            )
    return tuple(notes)


def _on_repetition(candidate: Candidate) -> str:
    size, zipped = candidate.size_bytes, candidate.zipped_bytes or 0
    gain = (
        f"{candidate.name}: {candidate.repeated_weights}, which saves space once it is compressed "
        f"(zip: {zipped / 1000:.1f} KB of {size / 1000:.1f})"
    )
    interval = candidate.speedup[0].same_runtime_ci95
    if candidate.precision != "float32" or interval is None:
        return gain
    lo, hi = interval
    timed = f"[{lo:.2f}, {hi:.2f}] of its parent's on the same runtime"
    if speed_verdict(lo, hi) == "faster":
        return f"{gain}, and time: {timed}"
    return f"{gain}, not time: {timed}"
