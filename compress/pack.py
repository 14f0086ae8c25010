"""The main job up to the bundle: trace, apply the recipe, export, pack, check parity."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import numpy as np
import safetensors.torch
import torch
from torch import fx, nn

import edgedl
from edgedl.compress.artifacts import ArtifactBuilder, BuiltArtifact, Refusal
from edgedl.compress.default_recipe import default_recipe
from edgedl.compress.evaluate import run_graph
from edgedl.compress.export.errors import ExportError
from edgedl.compress.graph.edit import input_nodes, output_nodes
from edgedl.compress.graph.lengths import free_output_axes
from edgedl.compress.graph.trace import trace
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.parity.between_runtimes import measure_between
from edgedl.compress.parity.expectations import layer_vectors
from edgedl.compress.parity.outputs import GraphOutputs, check_lengths, measure_parity
from edgedl.compress.quantize.check_calibration import calibration_warnings
from edgedl.compress.recipe import Recipe, fit_weights, keep_float, load_recipe
from edgedl.compress.stage import ModelState, Stage
from edgedl.compress.subject import Subject
from edgedl.compress.target import Target
from edgedl.runtime.bundle import Bundle, record_files, write_manifest
from edgedl.runtime.crashes import find_crashes
from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.golden import GOLDEN, GOLDEN_SAMPLES, check_golden, encode_golden
from edgedl.runtime.layer_vectors import LAYER_VECTORS
from edgedl.runtime.manifest import Artifact, Manifest, Precision, TaskRecord, TensorSpec
from edgedl.runtime.runner import Runner

ENCODINGS = "encodings.json"
# Weights of the float network that stages have cut or trained; ``rebuild`` reads it.
NETWORK = "network.safetensors"
REFERENCE = "ort-float32"
TOOLCHAIN = (
    "torch",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "litert-torch",
    "litert-quantizer",
    "ai-edge-litert",
    "tensorrt-rtx",
    "numpy",
)

Report = Callable[[str], None]


@dataclass(frozen=True)
class CompressedModel:
    """A written bundle, what could not be put into it, and reasons to doubt its calibration.

    ``parent`` is the network that the recipe cut or trained, None if it did neither.
    """

    bundle: Bundle
    refusals: tuple[Refusal, ...]
    warnings: tuple[str, ...] = ()
    parent: nn.Module | None = None


def compress(
    subject: Subject,
    recipe: Recipe | None,
    targets: tuple[Target, ...],
    folder: Path,
    report: Report = lambda text: None,
    float_layers: tuple[str, ...] = (),
    workspace: Path | None = None,
    only: tuple[Precision, ...] | None = None,
) -> CompressedModel:
    """Compress a subject and write its bundle into an empty folder.

    Args:
        subject: network and task.
        recipe: stages to apply; None for the one that suits the network.
        targets: runtimes to make files for; the float32 ONNX reference is always made.
        folder: must exist and be empty.
        report: hears one line before every step.
        float_layers: layers that stay float32, besides those that the recipe names.
        workspace: an existing folder for the checkpoints of stages that train; given again after
            an interruption, they go on where they stopped. Nothing in it belongs to the bundle.
        only: precisions of the files to make, besides the reference; None for all that there are.

    Raises:
        EdgedlError: a step cannot be done; the message says which and why.
    """
    state = ModelState(subject, _traced(subject, report), workspace=workspace)
    for stage in _stages(state.graph, recipe, targets, float_layers, report):
        report(type(stage).__name__)
        state = stage.apply(state)
    built, refusals = _write_files(ArtifactBuilder(state, only), targets, folder, report)
    _write_companions(state, built, folder)
    manifest = _describe(state, [b.artifact for b in built], folder)
    write_manifest(folder, manifest)
    outputs = GraphOutputs(subject.task)
    bundle = Bundle.open(folder)
    checked, refused = _check_files(state, bundle, built, outputs, report)
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
    warnings = calibration_warnings(state.quantized, subject.task) if state.quantized else ()
    refusals += refused
    return CompressedModel(Bundle.open(folder), tuple(refusals), warnings, state.parent)


def _traced(subject: Subject, report: Report) -> fx.GraphModule:
    report("trace")
    return trace(subject.module, subject.example_inputs(), subject.free_axes)


def _stages(
    graph: fx.GraphModule,
    recipe: Recipe | None,
    targets: tuple[Target, ...],
    float_layers: tuple[str, ...],
    report: Report,
) -> Sequence[Stage]:
    """Return the stages of a recipe, or of the one that suits the network, fit to the targets."""
    if recipe is None:
        name, reason = default_recipe(graph)
        report(f"recipe {name}: {reason}")
        recipe = load_recipe(name)
    return fit_weights(keep_float(recipe, float_layers), targets).stages


def _write_files(
    builder: ArtifactBuilder, targets: tuple[Target, ...], folder: Path, report: Report
) -> tuple[list[BuiltArtifact], list[Refusal]]:
    built: list[BuiltArtifact] = []
    refusals: list[Refusal] = []
    for item in builder.build(targets, lambda name: report(f"export {name}")):
        if isinstance(item, Refusal):
            refusals.append(item)
        else:
            built.append(item)
            (folder / item.artifact.path).write_bytes(item.content)
    return built, refusals


def _check_files(
    state: ModelState,
    bundle: Bundle,
    built: list[BuiltArtifact],
    outputs: GraphOutputs,
    report: Report,
) -> tuple[list[BuiltArtifact], list[Refusal]]:
    """Run every written file; return those that may ship, and the others with the reason.

    Raises:
        BadInputError, ExportError: the float32 reference is among the others.
    """
    checked: list[BuiltArtifact] = []
    refusals: list[Refusal] = []
    runnable = [b.artifact.name for b in built if b.artifact.backend != "tensorrt"]
    crashes = find_crashes(bundle.folder, runnable)
    for item in built:
        name = item.artifact.name
        report(f"check {name}")
        try:
            if name in crashes:
                raise ExportError(
                    f"{name} crashes its runtime when it is loaded or run (signal {crashes[name]})"
                )
            artifact = _with_parity(state, bundle, item, outputs)
            checked.append(replace(item, artifact=artifact))
        except (ExportError, BadInputError) as error:
            if name == REFERENCE:
                raise
            refusals.append(Refusal(name, str(error)))
    return checked, refusals


def _with_parity(
    state: ModelState, bundle: Bundle, item: BuiltArtifact, outputs: GraphOutputs
) -> Artifact:
    """Run a written file; what its runtime refuses or computes wrongly must not ship.

    Raises:
        BadInputError: the runtime refuses the file.
        ExportError: its golden outputs are not what the torch graph computes.
    """
    try:
        parity = measure_parity(state, bundle, item, outputs)
        check_lengths(state, bundle, item)
        if item.artifact.backend != "tensorrt":
            golden = check_golden(Runner(bundle, item.artifact))
            if not golden.passed:
                raise ExportError(
                    f"{item.artifact.name} differs from the torch graph by "
                    f"{golden.max_abs_error:.3g} on its runtime, allowed is {golden.tolerance:.3g}"
                )
    except BackendUnavailableError as error:
        said = [item.artifact.check] if item.artifact.check else []
        return msgspec.structs.replace(item.artifact, check="; ".join([*said, f"not run: {error}"]))
    return msgspec.structs.replace(item.artifact, parity=parity)


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


def _describe(state: ModelState, artifacts: list[Artifact], folder: Path) -> Manifest:
    subject = state.subject
    free_outputs = free_output_axes(state.graph, subject.example_inputs(), subject.free_axes)
    return Manifest(
        name=subject.name,
        task=TaskRecord(subject.task.name, subject.task.metric, tuple(subject.task.classes)),
        inputs=tuple(_logical(n, subject.free_axes) for n in input_nodes(state.graph)),
        outputs=tuple(
            _logical(n, axes)
            for n, axes in zip(output_nodes(state.graph), free_outputs, strict=True)
        ),
        preprocessing=subject.task.preprocessing,
        artifacts=tuple(artifacts),
        files=record_files(folder),
        history=state.history,
        toolchain=toolchain(),
        licence=subject.licence,
        data=subject.data,
    )


def _logical(node: fx.Node, free_axes: tuple[int, ...]) -> TensorSpec:
    """Describe an input or output of the graph, None where its size is free."""
    value = node.meta["val"]
    shape = tuple(None if i in free_axes else int(d) for i, d in enumerate(value.shape))
    return TensorSpec.of(node.name, shape, str(np.dtype(str(value.dtype).removeprefix("torch."))))


def toolchain() -> dict[str, str]:
    """Return the versions of everything that has a hand in the files."""
    versions = {"edgedl": edgedl.__version__, "torch_threads": str(torch.get_num_threads())}
    for package in TOOLCHAIN:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
