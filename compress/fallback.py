"""Files for runtimes that have no good quantized one: dynamic int8, else int8 weights."""

from dataclasses import replace

from edgedl.compress.artifacts.build import ArtifactBuilder, Refusal
from edgedl.compress.bundle_files import BundleFiles
from edgedl.compress.quantize.dynamic import QuantizeDynamic
from edgedl.compress.quantize.weight_only import QuantizeWeights
from edgedl.compress.stage import Stage
from edgedl.compress.state import ModelState
from edgedl.compress.targets.target import Target
from edgedl.runtime.errors import EdgedlError
from edgedl.runtime.precision import DYNAMIC_INT8, FLOAT32, INT8_WEIGHTS, Precision

# Each quantizes less than the one before.
STEPS: tuple[tuple[Precision, Stage], ...] = (
    (DYNAMIC_INT8, QuantizeDynamic()),
    (INT8_WEIGHTS, QuantizeWeights(bits=8, group_size=None)),
)


def add_fallbacks(
    files: BundleFiles, state: ModelState, targets: tuple[Target, ...]
) -> tuple[str, ...]:
    """Make files that quantize less, for targets without a good quantized one; return notes.

    A good one was accepted and destroys no part of an output. A network that no stage has quantized
    has none to fall back from.

    Args:
        files: of the bundle, made so far.
        state: that they were made of.
        targets: of the bundle.
    """
    if all(precision.is_float for precision in state.precisions):
        return ()
    unquantized = replace(state, quantized=None, dynamic_bits=None, weights=None)
    notes = []
    for precision, stage in STEPS:
        wanting = tuple(
            t
            for t in targets
            if precision.name in t.precisions
            and precision not in state.precisions
            and _is_made(files, t)
            and not _has_good(files, t)
        )
        if not wanting:
            continue
        try:
            less, _ = stage.fit(wanting).change(unquantized)
        except EdgedlError as error:
            files.refusals += [Refusal.of(t.artifact_name(precision), error) for t in wanting]
            continue
        files.make(ArtifactBuilder(less, (precision,), reference=False), wanting)
        named = ", ".join(t.name for t in wanting)
        notes.append(f"no quantized file for {named} was good: {precision} was tried, too")
    return tuple(notes)


def _is_made(files: BundleFiles, target: Target) -> bool:
    """Say whether the float32 file of a target is good: others are made of it."""
    return any(item.target == target and item.artifact.kind is FLOAT32 for item in files.accepted)


def _has_good(files: BundleFiles, target: Target) -> bool:
    return any(
        item.target == target and not item.artifact.kind.is_float and not item.artifact.findings
        for item in files.accepted
    )
