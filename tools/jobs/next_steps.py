"""What to do after a job: printed at the end of every ``compress``."""

from collections.abc import Sequence

from edgedl.runtime.precision import FLOAT32
from edgedl.tools.bench.recommend import allowed_drop, fastest_undecided
from edgedl.tools.bench.result import Candidate, Result


def next_steps(result: Result, subject: str, noisiest: Sequence[str] = ()) -> tuple[str, ...]:
    """Return what helps, most urgent first: a sentence each.

    Args:
        result: of the job.
        subject: as the command line names it; "" where it has no name there.
        noisiest: the layers at which int8 loses most, each with its dB.
    """
    steps = [
        f"{c.name} destroys a part of an output: {c.findings[0].cure}"
        for c in result.candidates
        if c.findings
    ]
    quantized = [c for c in result.candidates if c.precision.startswith("int8")]
    limit = allowed_drop(result.max_drop_pp)
    lossy = [c for c in quantized if c.drop.pp > limit]
    if lossy:
        most = f", most at {', '.join(noisiest)}: use --keep-float for one, or" if noisiest else ":"
        steps.append(
            f"{lossy[0].name} loses {lossy[0].drop.pp:.2f} points{most} try --recipe "
            "static_w8c_a8_learned_rounding"
        )
        if subject:
            steps.append(f"'edgedl explain {subject}' shows what each layer costs")
    undecided = fastest_undecided(result.candidates, result.max_drop_pp)
    if undecided is not None and undecided.drop.more_samples is not None:
        steps.append(
            f"give about {undecided.drop.more_samples} more test samples: they show whether "
            f"{undecided.name} loses more than {limit:g} points"
        )
    slow = [c for c in quantized if _is_slower(c)]
    if subject and slow and len(slow) == len(quantized):
        backend = slow[0].backend
        steps.append(
            f"int8 is not faster here: 'edgedl explain {subject} --time {backend}' shows why"
        )
    if result.recommendation.name.endswith(f"-{FLOAT32}") and not steps:
        steps.append("try a smaller network: --recipe distill_prune_ch50")
    return tuple(steps) or ("on the device: 'edgedl verify BUNDLE', then 'edgedl bench BUNDLE'",)


def _is_slower(candidate: Candidate) -> bool:
    interval = candidate.speedup[0].same_runtime_ci95
    return interval is not None and interval[0] > 1.0
