"""Hold a file, run by its runtime, against the torch graph it was exported from."""

from collections.abc import Iterator

import numpy as np
from torch import fx

from edgedl.compress.artifacts.build import BuiltArtifact
from edgedl.compress.artifacts.tolerance import steps_by_output
from edgedl.compress.errors import ExportError
from edgedl.compress.graph.lengths import shortened
from edgedl.compress.graph.run import run_graph
from edgedl.compress.parity.computed import compute
from edgedl.compress.parity.layers import certify_layers, single_samples
from edgedl.compress.state import ModelState
from edgedl.runtime.backend import Array
from edgedl.runtime.bundle.manifest import LayerCertificate, OutputParity, Parity
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.precision import INT8
from edgedl.runtime.runner import Floats, run_file
from edgedl.runtime.task.task import Task

PARITY_SAMPLES = 500
BATCH = 50


class GraphOutputs:
    """What torch graphs compute on the first test samples; each graph runs once."""

    def __init__(self, task: Task, samples: int = PARITY_SAMPLES) -> None:
        """Remember the task; nothing runs yet."""
        self.inputs = list(_inputs(task, samples))
        self._found: dict[int, list[tuple[Floats, ...]]] = {}

    def of(self, graph: fx.GraphModule) -> list[tuple[Floats, ...]]:
        """Return the outputs for every batch of ``inputs``; the graph must stay alive."""
        if id(graph) not in self._found:
            self._found[id(graph)] = [run_graph(graph, inputs) for inputs in self.inputs]
        return self._found[id(graph)]


def measure_parity(state: ModelState, built: BuiltArtifact, outputs: GraphOutputs) -> Parity:
    """Compare one artifact with its torch graph on test samples.

    Where the runtime cannot run, what stands in for it computes the file.
    """
    artifact = built.artifact
    compared = [_OutputErrors() for _ in artifact.outputs]
    agree: list[Array] = []
    agree_float: list[Array] = []
    computed = compute(built)
    for inputs, expected, reference in zip(
        outputs.inputs, outputs.of(built.graph), outputs.of(state.graph), strict=True
    ):
        found = run_file(computed.session, artifact, inputs)
        if any(a.shape != b.shape for a, b in zip(found, expected, strict=True)):
            raise ExportError(
                f"{artifact.name} gives the shapes {[list(a.shape) for a in found]}, "
                f"the network {[list(b.shape) for b in expected]}"
            )
        for output, values in zip(
            compared, zip(found, expected, reference, strict=True), strict=True
        ):
            output.add(*values)
        agree.append(_same_class(found[0], expected[0]))
        agree_float.append(_same_class(found[0], reference[0]))
    mean = sum(output.total for output in compared) / sum(output.count for output in compared)
    is_classifier = has_classes(state.subject.task) and len(artifact.outputs[0].shape) == 2
    found_steps = steps_by_output(state, built.target)
    by_output = found_steps if artifact.kind.has_steps else [None] * len(found_steps)
    steps = [step for step in by_output if step is not None]
    return Parity(
        samples=sum(len(a) for a in agree),
        max_abs_error=float(np.max([output.largest for output in compared])),
        mean_abs_error=mean,
        mean_lsb_error=mean / max(steps) if steps else None,
        prediction_agreement=float(np.concatenate(agree).mean()) if is_classifier else None,
        float32_agreement=float(np.concatenate(agree_float).mean()) if is_classifier else None,
        runtime=computed.name,
        layers=_certify(built, outputs) if artifact.kind is INT8 else None,
        outputs=tuple(
            output.record(spec.name, step)
            for output, spec, step in zip(compared, artifact.outputs, by_output, strict=True)
        ),
    )


class _OutputErrors:
    """Sums over the batches of one output.

    Attributes:
        count: of values.
        largest: absolute difference between the file and its torch graph.
        total: of the absolute differences.
    """

    def __init__(self) -> None:
        self.count, self.largest, self.total = 0, 0.0, 0.0
        self._energy = self._noise = self._float_energy = self._float_noise = 0.0

    def add(self, found: Floats, expected: Floats, reference: Floats) -> None:
        """Take in a batch: of the file, of its torch graph, of the float32 network."""
        error = np.abs(found.astype(np.float64) - expected)
        self.count += error.size
        # numpy's maximum keeps a NaN.
        self.largest = float(np.maximum(self.largest, error.max(initial=0.0)))
        self.total += float(error.sum())
        self._energy += float(np.square(expected, dtype=np.float64).sum())
        self._noise += float(np.square(error).sum())
        self._float_energy += float(np.square(reference, dtype=np.float64).sum())
        self._float_noise += float(np.square(found.astype(np.float64) - reference).sum())

    def record(self, name: str, step: float | None) -> OutputParity:
        mean = self.total / self.count
        return OutputParity(
            name,
            self.largest,
            mean,
            self.largest / step if step else None,
            mean / step if step else None,
            _decibels(self._energy, self._noise),
            _decibels(self._float_energy, self._float_noise),
        )


def _decibels(energy: float, noise: float) -> float | None:
    return float(10 * np.log10(energy / noise)) if energy and noise else None


def _certify(built: BuiltArtifact, outputs: GraphOutputs) -> LayerCertificate:
    """Compare layer by layer; a runtime that shows no inner tensors is written down."""
    samples = list(single_samples(outputs.inputs))
    try:
        return certify_layers(built, samples)
    except BadInputError as error:
        return LayerCertificate(0, 0.0, (), not_read=str(error))


def has_classes(task: Task) -> bool:
    """Say whether the largest of a task's outputs is a prediction."""
    return bool(task.classes) or task.metric == "top1"


def check_lengths(state: ModelState, built: BuiltArtifact) -> None:
    """Run a file whose inputs have a free axis besides the batch at another size of it.

    Raises:
        ExportError: it does not compute there what the torch graph computes.
    """
    artifact = built.artifact
    free = tuple(i for i, d in enumerate(artifact.inputs[0].shape) if d is None)
    if not any(free):
        return
    inputs = tuple(x.numpy() for x in shortened(state.subject.example_inputs(), free))
    found = run_file(compute(built).session, artifact, inputs)
    expected = run_graph(built.graph, inputs)
    for a, b, allowed in zip(found, expected, artifact.golden_tolerances, strict=True):
        worst = float(np.abs(a - b).max()) if a.shape == b.shape else np.inf
        if not worst <= allowed:
            raise ExportError(
                f"{artifact.name} differs from the torch graph by {worst:.3g} on inputs of the "
                f"sizes {[list(x.shape) for x in inputs]}, allowed is {allowed:.3g}"
            )


def _inputs(task: Task, samples: int) -> Iterator[tuple[Array, ...]]:
    seen = 0
    for batch in task.batches("test", BATCH):
        if seen >= samples:
            return
        seen += len(batch.labels)
        yield batch.inputs


def _same_class(a: Floats, b: Floats) -> Array:
    if a.ndim != 2:
        return np.zeros(len(a), bool)
    return np.asarray(a.argmax(axis=1) == b.argmax(axis=1))
