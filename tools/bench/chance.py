"""Whether the baseline knows more than a guess does."""

from edgedl.runtime.bundle.manifest import Manifest
from edgedl.runtime.task.checks import TOP1
from edgedl.tools.bench.result import Result


def chance_notes(result: Result, manifest: Manifest) -> tuple[str, ...]:
    """Return a note where the baseline is not shown to be better than guessing; else none.

    Args:
        result: with the baseline's score.
        manifest: of the baseline's bundle; it knows the classes, or how many outputs there are.
    """
    score = result.candidate(result.baseline).score
    classes = len(manifest.task.classes) or _outputs(manifest)
    if score.metric != TOP1 or classes < 2 or score.ci95[0] > 1 / classes:
        return ()
    low, high = (f"{100 * end:.2f}" for end in score.ci95)
    return (
        f"the float network is not shown to be better than chance: {result.baseline} scores "
        f"{100 * score.value:.2f} % [{low}, {high}], a guess among {classes} classes "
        f"{100 / classes:.2f} %; check labels, the order of classes and the preprocessing first",
    )


def _outputs(manifest: Manifest) -> int:
    """Return how many numbers the first output [N, K] has; 0 for one of another shape."""
    shape = manifest.outputs[0].shape
    return shape[1] or 0 if len(shape) == 2 else 0
