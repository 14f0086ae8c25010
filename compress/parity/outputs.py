"""Hold a file, run by its runtime, against the torch graph it was exported from."""

from collections.abc import Sequence

import msgspec
import numpy as np
from torch import fx

from edgedl.compress.artifacts.build import BuiltArtifact
from edgedl.compress.artifacts.tolerance import steps_by_output
from edgedl.compress.errors import ExportError, first_line
from edgedl.compress.export.exporter import StandIn, exporter_of
from edgedl.compress.graph.run import run_graph
from edgedl.compress.parity.acceptance import is_decided
from edgedl.compress.parity.computed import compute
from edgedl.compress.parity.graph_outputs import GraphOutputs
from edgedl.compress.parity.layers import certify_layers, single_samples
from edgedl.compress.parity.parts import OutputOrigins, measure_part
from edgedl.compress.state import ModelState
from edgedl.runtime.backend import Array
from edgedl.runtime.bundle.certificates import LayerCertificate, OutputParity, Parity, PartParity
from edgedl.runtime.loaded_model import run_file
from edgedl.runtime.precision import INT8
from edgedl.runtime.task.batch_size import fitting_count
from edgedl.runtime.task.task import Task
from edgedl.runtime.tensors import Floats


def _join(batches: Sequence[tuple[Floats, ...]]) -> list[Floats] | None:
    columns = list(zip(*batches, strict=True))
    if any(len({y.shape[1:] for y in column}) > 1 for column in columns):
        return None
    return [np.concatenate(column) for column in columns]


def measure_parity(state: ModelState, built: BuiltArtifact, outputs: GraphOutputs) -> Parity:
    """Compare a file with its torch graph, on as many test samples as decide what becomes of it.

    Where the runtime cannot run, what stands in for it computes the file.

    Raises:
        ExportError: the file gives other shapes than the network, or another number of outputs.
    """
    computed, kind = compute(built), built.artifact.kind
    first = outputs.first_samples(kind)
    parity = _measure(state, built, computed, outputs, first)
    if parity.samples < outputs.samples and not is_decided(parity.outputs, kind):
        parity = _measure(state, built, computed, outputs, outputs.samples)
    if kind is not INT8:
        return parity
    floats = exporter_of(built.target).float_operators(built.content)
    return msgspec.structs.replace(
        parity,
        layers=_certify(built, outputs),
        float_operators=None if floats is None else tuple(floats),
    )


def _measure(
    state: ModelState,
    built: BuiltArtifact,
    computed: StandIn,
    outputs: GraphOutputs,
    samples: int,
) -> Parity:
    """Return the parity on the first so many samples; without that of layers."""
    artifact = built.artifact
    expected, reference = (outputs.of(g, samples) for g in (built.graph, state.graph))
    found = []
    for inputs, wanted in zip(outputs.first(samples), expected, strict=True):
        found.append(run_file(computed.session, artifact, inputs))
        shapes = [[list(y.shape) for y in one] for one in (found[-1], wanted)]
        if shapes[0] != shapes[1]:
            raise ExportError(
                f"{artifact.name} gives the shapes {shapes[0]}, the network {shapes[1]}"
            )
    compared = [_OutputErrors() for _ in artifact.outputs]
    for values in zip(found, expected, reference, strict=True):
        for output, triple in zip(compared, zip(*values, strict=True), strict=True):
            output.add(*triple)
    mean = sum(output.total for output in compared) / sum(output.count for output in compared)
    is_classifier = has_classes(state.subject.task) and found[0][0].ndim == 2
    found_steps = steps_by_output(state, built.target)
    by_output = found_steps if artifact.kind.has_steps else [None] * len(found_steps)
    steps = [step for step in by_output if step is not None]
    return Parity(
        samples=sum(len(batch[0]) for batch in found),
        max_abs_error=float(np.max([output.largest for output in compared])),
        mean_abs_error=mean,
        mean_lsb_error=mean / max(steps) if steps else None,
        prediction_agreement=_agreement(found, expected) if is_classifier else None,
        float32_agreement=_agreement(found, reference) if is_classifier else None,
        runtime=computed.name,
        outputs=tuple(
            output.record(spec.name, step, parts)
            for output, spec, step, parts in zip(
                compared,
                artifact.outputs,
                by_output,
                _measure_parts(state, _join(found), reference, outputs),
                strict=True,
            )
        ),
    )


def _measure_parts(
    state: ModelState,
    found: list[Floats] | None,
    batches: list[tuple[Floats, ...]],
    outputs: GraphOutputs,
) -> list[tuple[PartParity, ...]]:
    """Return the parts of every output, held against the float network's batches."""
    reference = _join(batches)
    if found is None or reference is None:
        return [() for _ in batches[0]]
    origins = OutputOrigins(state.graph, outputs.inputs[0])
    return [
        tuple(measure_part(part, y, wanted) for part in origins.parts(index, wanted))
        for index, (y, wanted) in enumerate(zip(found, reference, strict=True))
    ]


def compare_output(
    name: str,
    found: Floats,
    expected: Floats,
    reference: Floats,
    parts: tuple[PartParity, ...] = (),
) -> OutputParity:
    """Hold one output [N, ...] against that of its torch graph and of the float network."""
    errors = _OutputErrors()
    errors.add(found, expected, reference)
    return errors.record(name, None, parts)


def compare_graphs(
    graph: fx.GraphModule, emitted: fx.GraphModule, inputs: tuple[Array, ...]
) -> list[OutputParity]:
    """Hold the outputs of an emitted graph against those of the float graph, by parts.

    Args:
        graph: canonical float graph.
        emitted: graph with pairs.
        inputs: samples [N, ...] of each input.
    """
    reference, found = _run(graph, inputs), _run(emitted, inputs)
    origins = OutputOrigins(graph, inputs)
    compared = []
    for index, (y, wanted) in enumerate(zip(found, reference, strict=True)):
        parts = tuple(measure_part(part, y, wanted) for part in origins.parts(index, wanted))
        compared.append(compare_output(f"output_{index}", y, y, wanted, parts))
    return compared


def _run(graph: fx.GraphModule, inputs: tuple[Array, ...]) -> list[Floats]:
    """Return the outputs of a graph, a few samples at a time."""
    few = fitting_count(inputs)
    parts = [
        run_graph(graph, tuple(x[i : i + few] for x in inputs))
        for i in range(0, len(inputs[0]), few)
    ]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def _agreement(
    found: Sequence[tuple[Floats, ...]], expected: Sequence[tuple[Floats, ...]]
) -> float:
    """Return the share of samples whose first output has the same argmax."""
    same = [a[0].argmax(1) == b[0].argmax(1) for a, b in zip(found, expected, strict=True)]
    return float(np.concatenate(same).mean())


class _OutputErrors:
    """Sums over the batches of one output.

    Attributes:
        count: of values.
        largest: absolute difference between the file and its torch graph.
        total: of the absolute differences.
    """

    def __init__(self) -> None:
        self.count, self.largest, self.total = 0, 0.0, 0.0
        self._energy = self._noise = 0.0
        self._float_energy = self._float_noise = self._graph_noise = 0.0

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
        self._graph_noise += float(np.square(expected.astype(np.float64) - reference).sum())

    def record(self, name: str, step: float | None, parts: tuple[PartParity, ...]) -> OutputParity:
        mean = self.total / max(1, self.count)
        return OutputParity(
            name,
            self.largest,
            mean,
            self.largest / step if step else None,
            mean / step if step else None,
            _decibels(self._energy, self._noise),
            _decibels(self._float_energy, self._float_noise),
            _decibels(self._float_energy, self._graph_noise),
            parts,
        )


def _decibels(energy: float, noise: float) -> float | None:
    return float(10 * np.log10(energy / noise)) if energy and noise else None


def _certify(built: BuiltArtifact, outputs: GraphOutputs) -> LayerCertificate:
    """Compare layer by layer; why a runtime shows no inner tensors is written down."""
    samples = list(single_samples(outputs.inputs))
    try:
        return certify_layers(built, samples)
    except Exception as error:
        # Whatever it raises, the file itself runs: only its certificate is not there.
        return LayerCertificate(0, 0.0, (), not_read=first_line(error))


def has_classes(task: Task) -> bool:
    """Say whether the largest of a task's outputs is a prediction."""
    return bool(task.classes) or task.metric == "top1"
