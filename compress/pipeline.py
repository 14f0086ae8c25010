"""The main job up to the bundle: trace, apply the recipe, export, pack, check parity."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import safetensors.torch
from torch import fx, nn

from edgedl.compress.artifacts.build import ArtifactBuilder, BuiltArtifact, Refusal
from edgedl.compress.encodings.check_calibration import calibration_warnings
from edgedl.compress.errors import ExportError
from edgedl.compress.graph.carried import carrying
from edgedl.compress.graph.run import run_graph
from edgedl.compress.graph.trace import trace
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.manifest_record import describe
from edgedl.compress.parity.between_runtimes import measure_between
from edgedl.compress.parity.check_files import check_files
from edgedl.compress.parity.expectations import layer_vectors
from edgedl.compress.parity.outputs import GraphOutputs
from edgedl.compress.quantize.search.protect_parts import ProtectParts
from edgedl.compress.recipe.apply_recipe import Applied, StageRunner, apply_recipe
from edgedl.compress.recipe.default_recipe import default_recipe, fitting_recipe
from edgedl.compress.recipe.judge import Judge
from edgedl.compress.recipe.recipe import Recipe
from edgedl.compress.recipe.store.ingredients import Provenance
from edgedl.compress.recipe.store.store import StageStore
from edgedl.compress.state import ModelState
from edgedl.compress.subject.check_subject import check_subject
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.target import REFERENCE, Target
from edgedl.compress.toolchain import toolchain
from edgedl.compress.training.training_data import calibration_notes
from edgedl.runtime.bundle.bundle import Bundle, record_files, write_manifest
from edgedl.runtime.bundle.golden import GOLDEN, GOLDEN_SAMPLES, encode_golden
from edgedl.runtime.bundle.layer_vectors import LAYER_VECTORS
from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.precision import INT8, Precision
from edgedl.runtime.progress import SILENT, Progress
from edgedl.runtime.task.task import Task

ENCODINGS = "encodings.json"
# Weights of the float network that stages have cut or trained; ``rebuild`` reads it.
NETWORK = "network.safetensors"
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
    built, refusals = _write_files(ArtifactBuilder(state, only), targets, folder, progress)
    _write_companions(state, built, folder)
    manifest = describe(state, [b.artifact for b in built], folder)
    write_manifest(folder, manifest)
    outputs = GraphOutputs(subject.task)
    outputs.limit(state.graph)
    bundle = Bundle.open(folder)
    found = check_files(state, bundle, built, outputs, progress)
    checked, refusals = found.accepted, [*refusals, *found.refusals]
    if by_default and only is None:
        refusals += _left_out(begin.graph, state, targets)
    _refuse_nothing_good(checked, refusals)
    kept = {item.artifact.path for item in checked}
    for path in {item.artifact.path for item in built} - kept:
        (folder / path).unlink()
    _write_layer_vectors(bundle, checked)
    finished = msgspec.structs.replace(
        manifest,
        artifacts=tuple(item.artifact for item in checked),
        between=measure_between(state, bundle, checked, outputs.inputs),
        files=record_files(folder),
    )
    write_manifest(folder, finished)
    warnings = _doubts(state)
    if _weight_bits(state) == REFERENCE.weight_bits_here < REFERENCE.weight_bits:
        warnings = (*warnings, SMALL_WEIGHTS)
    return CompressedModel(
        Bundle.open(folder),
        tuple(refusals),
        (*state.undone, *applied.notes, *calibration_notes(state.history, subject.task), *warnings),
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


def _write_files(
    builder: ArtifactBuilder, targets: tuple[Target, ...], folder: Path, progress: Progress
) -> tuple[list[BuiltArtifact], list[Refusal]]:
    built: list[BuiltArtifact] = []
    refusals: list[Refusal] = []
    for item in builder.build(targets, progress):
        if isinstance(item, Refusal):
            refusals.append(item)
        else:
            built.append(item)
            (folder / item.artifact.path).write_bytes(item.content)
    return built, refusals


def _left_out(
    graph: fx.GraphModule, state: ModelState, targets: tuple[Target, ...]
) -> list[Refusal]:
    """Say of each target why the default recipe makes no int8 file for it."""
    if INT8 in state.precisions:
        return []
    name, reason = default_recipe(graph)
    why = f"not made: the default recipe is {name}, as {reason}"
    return [Refusal(t.artifact_name(INT8), why) for t in targets if t.has(INT8)]


def _refuse_nothing_good(checked: list[BuiltArtifact], refusals: list[Refusal]) -> None:
    """Make sure that a file is left.

    Raises:
        ExportError: none is.
        BackendUnavailableError: none is, and each lacks a library.
    """
    if checked:
        return
    reasons = "; ".join(f"{refusal.name}: {refusal.reason}" for refusal in refusals)
    if refusals and all(refusal.missing for refusal in refusals):
        raise BackendUnavailableError(f"no file could be made: {reasons}")
    raise ExportError(f"no file can be used: {reasons}")


def _write_companions(state: ModelState, built: list[BuiltArtifact], folder: Path) -> None:
    """Write the golden vectors, the encodings table, and the weights of a changed network."""
    batch = next(iter(state.subject.task.batches("test", GOLDEN_SAMPLES)))
    expected = {b.artifact.name: run_graph(b.graph, batch.inputs) for b in built}
    (folder / GOLDEN).write_bytes(encode_golden(batch.inputs, expected))
    if state.quantized is not None:
        (folder / ENCODINGS).write_bytes(state.quantized.encodings.to_json())
    if state.parent is not None and isinstance(state.subject.module, TracedNetwork):
        (folder / NETWORK).write_bytes(safetensors.torch.save(state.subject.module.tensors()))


def _write_layer_vectors(bundle: Bundle, checked: list[BuiltArtifact]) -> None:
    size_bytes = sum(record.size_bytes for record in bundle.manifest.files.values())
    content = layer_vectors(bundle, checked, size_bytes)
    if content is not None:
        (bundle.folder / LAYER_VECTORS).write_bytes(content)
