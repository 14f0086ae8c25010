"""What to do behind a job: said at the end of every ``compress``."""

from collections.abc import Sequence

from edgedl.runtime.precision import FLOAT32
from edgedl.tools.bench.recommend import DEFAULT_MAX_DROP_PP
from edgedl.tools.bench.result import Candidate, Result


def next_steps(result: Result, subject: str, noisiest: Sequence[str] = ()) -> tuple[str, ...]:
    """Return what helps, most urgent first: a sentence each.

    Args:
        result: of the job.
        subject: as the command line names it.
        noisiest: the layers at which int8 loses most, each with its dB.
    """
    steps = [
        f"{c.name} is not recommended for what it destroys: {c.findings[0].cure}"
        for c in result.candidates
        if c.findings
    ]
    quantized = [c for c in result.candidates if c.precision.startswith("int8")]
    limit = DEFAULT_MAX_DROP_PP if result.max_drop_pp is None else result.max_drop_pp
    lossy = [c for c in quantized if c.drop.pp > limit]
    if lossy:
        layers = f", most at {', '.join(noisiest)}" if noisiest else ""
        steps.append(
            f"{lossy[0].name} loses {lossy[0].drop.pp:.2f} points{layers}: --keep-float one of "
            "them, or try --recipe static_w8c_a8_learned_rounding; "
            f"'edgedl explain {subject}' prices every layer in points"
        )
    slow = [c for c in quantized if _is_slower(c)]
    if slow and len(slow) == len(quantized):
        steps.append(
            f"no int8 file is faster than float32 on its runtime: 'edgedl explain {subject} --time "
            f"{slow[0].backend}' says which layers cost time"
        )
    if result.recommendation.name.endswith(f"-{FLOAT32}") and not steps:
        steps.append("a smaller network helps where int8 does not: --recipe distill_prune_ch50")
    return tuple(steps) or ("try the bundle on the device: 'edgedl verify', 'edgedl bench'",)


def _is_slower(candidate: Candidate) -> bool:
    interval = candidate.speedup[0].same_runtime_ci95
    return interval is not None and interval[0] > 1.0
