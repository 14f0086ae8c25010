"""The main job up to the bundle: trace, apply the recipe, export, pack, check parity."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from torch import fx, nn

from edgedl.compress.artifacts.build import ArtifactBuilder, Refusal
from edgedl.compress.bundle_files import BundleFiles
from edgedl.compress.encodings.check_calibration import calibration_warnings
from edgedl.compress.export.outside import Outside
from edgedl.compress.fallback import add_fallbacks
from edgedl.compress.graph.carried import carrying
from edgedl.compress.graph.trace import trace
from edgedl.compress.quantize.search.protect_parts import ProtectParts
from edgedl.compress.recipe.apply_recipe import Applied, StageRunner, apply_recipe
from edgedl.compress.recipe.default_recipe import default_recipe, fitting_recipe
from edgedl.compress.recipe.judge import Judge
from edgedl.compress.recipe.recipe import Recipe
from edgedl.compress.recipe.store.ingredients import Provenance
from edgedl.compress.recipe.store.store import StageStore
from edgedl.compress.state import ModelState
from edgedl.compress.subject.check_subject import check_subject
from edgedl.compress.subject.steps import by_steps, step_task
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.target import REFERENCE, Target
from edgedl.compress.toolchain import toolchain
from edgedl.compress.training.training_data import calibration_notes
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.precision import INT8, Precision
from edgedl.runtime.progress import SILENT, Progress
from edgedl.runtime.task.task import Task

SMALL_WEIGHTS = (
    "this processor has no VNNI: int8 weights have 7 bits, so that ONNX Runtime does not saturate"
)


@dataclass(frozen=True)
class CompressedModel:
    """A written bundle, what could not be put into it, and reasons to doubt its data.

    ``parent`` is the network that the recipe cut or trained, None if it did neither; ``missed`` the
    budget of a stage that could not be met: the bundle is then of the stages before; ``noisiest``
    the layers at which int8 loses most, each with its dB.
    """

    bundle: Bundle
    refusals: tuple[Refusal, ...]
    warnings: tuple[str, ...] = ()
    parent: nn.Module | None = None
    missed: str | None = None
    noisiest: tuple[str, ...] = ()


def compress(
    subject: Subject,
    recipe: Recipe | None,
    targets: tuple[Target, ...],
    folder: Path,
    float_layers: tuple[str, ...] = (),
    store: StageStore | None = None,
    selection: Task | None = None,
    only: Collection[Precision] | None = None,
    progress: Progress = SILENT,
) -> CompressedModel:
    """Compress a subject and write its bundle into an empty folder.

    Args:
        subject: network and task.
        recipe: stages to apply; None for the one that suits the network.
        targets: runtimes to make files for; the float32 ONNX reference is always made.
        folder: must exist and be empty.
        float_layers: layers that stay float32, besides those that the recipe names.
        store: where results of stages are kept and found again, and checkpoints of those that
            were cut off; None applies every stage anew.
        selection: task whose split "test" says whether the budgets of stages are met; its samples
            should not be those of the final score.
        only: precisions of the files to make, besides the reference; None for all that there are.
        progress: says each step, and how it gets on: what is reused, epochs, what budgets came to.

    Raises:
        EdgedlError: a step cannot be done; the message says which and why.
    """
    if not folder.is_dir() or any(folder.iterdir()):
        raise BadInputError(f"{folder} must be an empty folder: a bundle contains nothing else")
    selection = None if selection is None else step_task(subject, selection)
    subject = by_steps(subject)
    notes = check_subject(subject)
    progress.step("trace")
    graph = trace(subject.module, subject.example_inputs(), subject.free_axes)
    begin = ModelState(subject, graph, progress=progress)
    with carrying(graph):
        made = _finish(begin, recipe, targets, folder, float_layers, store, selection, only)
    return replace(made, warnings=(*notes, *made.warnings))


def _finish(
    begin: ModelState,
    recipe: Recipe | None,
    targets: tuple[Target, ...],
    folder: Path,
    float_layers: tuple[str, ...],
    store: StageStore | None,
    selection: Task | None,
    only: Collection[Precision] | None,
) -> CompressedModel:
    """Do what ``compress`` says with a traced network."""
    subject, progress = begin.subject, begin.progress
    by_default = recipe is None
    recipe = fitting_recipe(begin.graph, recipe, targets, float_layers, progress)
    applied = _apply(begin, recipe, store, selection)
    state, noisiest = _protected(applied.state)
    files = BundleFiles(state, folder)
    files.make(ArtifactBuilder(state, only), targets)
    left_out: list[Refusal] = []
    added: tuple[str, ...] = ()
    if by_default and only is None:
        added = add_fallbacks(files, state, targets)
        left_out = _left_out(begin.graph, state, targets)
    bundle = files.finish(left_out)
    warnings = _doubts(state)
    if any(target.input_norms == "outside" for target in targets):
        warnings = (*warnings, Outside.of(state).describe())
    if _weight_bits(state) == REFERENCE.weight_bits_here < REFERENCE.weight_bits:
        warnings = (*warnings, SMALL_WEIGHTS)
    return CompressedModel(
        bundle,
        tuple(files.refusals),
        (
            *state.undone,
            *applied.notes,
            *calibration_notes(state.history, subject.task),
            *warnings,
            *added,
        ),
        state.parent,
        applied.missed,
        noisiest,
    )


def _protected(state: ModelState) -> tuple[ModelState, tuple[str, ...]]:
    """Keep layers in float where int8 destroys a part of an output; return the noisiest, too."""
    stage = ProtectParts()
    quantized = state.quantized
    if quantized is None or quantized.encodings.precision not in stage.refines:
        return state, ()
    if stage.finds_damage(state):
        state = stage.apply(state)
    return state, stage.noisiest(state)


def _doubts(state: ModelState) -> tuple[str, ...]:
    """Return what is doubtful about the samples that the ranges are from."""
    if state.quantized is None:
        return ()
    used = [s.calibration_samples for s in state.stages if s.calibration_samples is not None]
    samples = used[-1] if used else None
    return calibration_warnings(state.quantized, state.subject.task, samples)


def _weight_bits(state: ModelState) -> int | None:
    if state.quantized is not None and state.quantized.encodings.precision == INT8.name:
        return state.quantized.encodings.weight_bits
    return state.dynamic_bits


def _apply(
    begin: ModelState,
    recipe: Recipe,
    store: StageStore | None,
    selection: Task | None,
) -> Applied:
    def judge() -> Judge:
        if selection is None:
            raise BadInputError(
                "a stage of the recipe has a budget: give compress() the selection, a task whose "
                "split 'test' it is checked on"
            )
        return Judge(begin, selection)

    known = None if store is None else Provenance(begin, toolchain())
    return apply_recipe(begin, recipe, StageRunner(store, known), judge)


def _left_out(
    graph: fx.GraphModule, state: ModelState, targets: tuple[Target, ...]
) -> list[Refusal]:
    """Say of each target why the default recipe makes no int8 file for it."""
    if INT8 in state.precisions:
        return []
    name, reason = default_recipe(graph)
    why = f"not made: the default recipe is {name}, as {reason}"
    return [Refusal(t.artifact_name(INT8), why) for t in targets if t.has(INT8)]
