"""Warnings that a reader must know before the result."""

from collections.abc import Sequence

from edgedl.runtime.bundle.manifest import Artifact, Manifest
from edgedl.runtime.precision import precision_named
from edgedl.runtime.task.checks import TOP1
from edgedl.runtime.task.scores import R2
from edgedl.tools.bench.result import Result


def chance_alerts(result: Result, manifest: Manifest) -> tuple[str, ...]:
    """Return a sentence where the float network is not shown to be better than guessing.

    Args:
        result: with its score, or the baseline's.
        manifest: of the baseline's bundle; it knows the classes, or how many outputs there are.
    """
    score = result.network or result.candidate(result.baseline).score
    who = "it" if result.network else result.baseline
    if score.metric == R2 and score.ci95[0] <= 0:
        return (
            f"the float network is not shown to be better than the mean of the labels: {who} has "
            f"r2 {score.value:.2f}; check the labels, their scale and the order of samples first",
        )
    classes = len(manifest.task.classes) or _outputs(manifest)
    if score.metric != TOP1 or classes < 2 or score.ci95[0] > 1 / classes:
        return ()
    low, high = (f"{100 * end:.2f}" for end in score.ci95)
    return (
        f"the float network is not shown to be better than chance: {who} scores "
        f"{100 * score.value:.2f} % [{low}, {high}], guessing among {classes} classes "
        f"{100 / classes:.2f} %; check labels, the order of classes and the preprocessing first",
    )


def quantized_alerts(made: Sequence[Artifact], refused: Sequence[str]) -> tuple[str, ...]:
    """Return a sentence where quantized files were wanted and none is good.

    Args:
        made: all files, those that cannot run here included.
        refused: names of those that were not made, or must not be used.
    """
    quantized = [artifact for artifact in made if not artifact.kind.is_float]
    wanted = bool(quantized) or any(not _is_float(name) for name in refused)
    if not wanted or any(not artifact.findings for artifact in quantized):
        return ()
    why = (
        "each destroys a part of an output (see the findings below)"
        if quantized
        else "none could be made (see the reasons under 'not measured')"
    )
    return (f"no quantized file is good: {why}",)


def _is_float(name: str) -> bool:
    return precision_named(name.partition("-")[2]).is_float


def _outputs(manifest: Manifest) -> int:
    """Return how many numbers the first output [N, K] has; 0 for one of another shape."""
    shape = manifest.outputs[0].shape
    return shape[1] or 0 if len(shape) == 2 else 0
