"""Turn a model state into the files each runtime loads."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import fx

from edgedl.compress.evaluate import as_tuple, without_onednn
from edgedl.compress.export.dynamic import dynamic_onnx, dynamic_tflite
from edgedl.compress.export.errors import ExportError, first_line
from edgedl.compress.export.float16 import to_bfloat16, to_float16
from edgedl.compress.export.onnx import (
    BFLOAT16_OPSET,
    BLOCK_OPSET,
    OPSET,
    describe_onnx,
    protect_float_layers,
    to_onnx,
)
from edgedl.compress.export.tensorrt import check_tensorrt
from edgedl.compress.export.tflite import describe_tflite, to_float16_weights, to_tflite
from edgedl.compress.export.tflite_int16 import to_tflite_int16
from edgedl.compress.export.weights_onnx import weights_for_ort, weights_for_tensorrt
from edgedl.compress.export.weights_tflite import weights_for_tflite
from edgedl.compress.graph.edit import output_nodes
from edgedl.compress.graph.operators import RECURRENT
from edgedl.compress.quantize.affine import grid_of
from edgedl.compress.quantize.emit import emit
from edgedl.compress.quantize.placement import float_islands, quantized_nodes
from edgedl.compress.stage import INTEGERS, ModelState
from edgedl.compress.target import Target, describe_target
from edgedl.runtime.backend import Array
from edgedl.runtime.manifest import Artifact, Precision
from edgedl.runtime.runner import Floats

# How far a runtime may be from the torch graph: steps of an int8 output, or a share of the
# largest float output.
INT8_TOLERANCE_LSB = 3.0
# Those of 16 bits are 256 times finer, and kernels look functions up in tables of 512 entries.
INT16_TOLERANCE_LSB = 64.0
# In deep networks one flipped rounding flips others behind it. How far that carries is measured: by
# the difference between two orders of summation in torch, times this.
ROUNDING_NOISE_FACTOR = 2.0
ROUNDING_NOISE_SAMPLES = 32
FLOAT_TOLERANCE: dict[Precision, float] = {
    "float32": 1e-3,
    "float16": 2e-2,
    "bfloat16": 1.6e-1,
    "fp8": 1e-1,
    "dynamic_int8": 1e-1,
    "int8_weights": 1e-3,
    "int4_weights": 1e-3,
}
WEIGHT_PRECISIONS: dict[int, Precision] = {4: "int4_weights", 8: "int8_weights"}


@dataclass(frozen=True)
class BuiltArtifact:
    """A file, its description, and the torch graph it must agree with."""

    artifact: Artifact
    content: bytes
    graph: fx.GraphModule


@dataclass(frozen=True)
class Refusal:
    """An artifact that could not be made, and why."""

    name: str
    reason: str


class ArtifactBuilder:
    """Builds the files of one model state; graphs and files that artifacts share are made once."""

    def __init__(self, state: ModelState) -> None:
        """Take the example inputs from the calibration split."""
        self._state = state
        self._inputs = state.subject.example_inputs()

    def build(
        self, targets: tuple[Target, ...], report: Callable[[str], None]
    ) -> Iterator[BuiltArtifact | Refusal]:
        """Yield every artifact of the targets, the float32 ONNX reference first.

        ``report`` hears the name of each before it is made. What a converter refuses is yielded
        as a refusal; the reference must succeed.

        Raises:
            ExportError: the float32 ONNX reference cannot be made.
        """
        for target, precision in self.plan(targets):
            name = f"{target}-{precision}"
            report(name)
            try:
                yield self._build(name, target, precision)
            except ExportError as error:
                if name == "ort-float32":
                    raise
                yield Refusal(name, str(error))

    def plan(self, targets: tuple[Target, ...]) -> list[tuple[Target, Precision]]:
        """Return what ``build`` makes, in its order."""
        precisions: tuple[Precision, ...] = ("float32", "float16", "bfloat16")
        if self._state.quantized is not None:
            precisions = (*precisions, self._state.quantized.encodings.precision)
        if self._state.dynamic:
            precisions = (*precisions, "dynamic_int8")
        if self._state.weights is not None:
            precisions = (*precisions, WEIGHT_PRECISIONS[self._state.weights.bits])
        wanted = [
            (target, precision)
            for target in targets
            for precision in precisions
            if _has(target, precision)
        ]
        reference: tuple[Target, Precision] = ("ort", "float32")
        return [reference, *(pair for pair in wanted if pair != reference)]

    def file(self, target: Target, precision: Precision) -> tuple[str, bytes]:
        """Return one file's name in the bundle and its content, not compared with anything.

        Raises:
            ExportError: it cannot be made.
        """
        return self._file(target, precision, self._graph(target, precision))

    def _build(self, name: str, target: Target, precision: Precision) -> BuiltArtifact:
        runtime = describe_target(target).runtime
        if precision in describe_target(target).refused:
            raise ExportError(describe_target(target).refused[precision])
        graph = self._graph(target, precision)
        path, content = self._file(target, precision, graph)
        describe = describe_tflite if runtime == "tflite" else describe_onnx
        inputs, outputs = describe(content)
        check = None
        if runtime == "tensorrt":
            verdict = check_tensorrt(content)
            check = verdict.describe()
            if not verdict.accepted:
                raise ExportError(check)
        tolerance = self._tolerance(name, graph, target, precision)
        artifact = Artifact(name, runtime, precision, path, inputs, outputs, tolerance, check=check)
        return BuiltArtifact(artifact, content, graph)

    def _graph(self, target: Target, precision: Precision) -> fx.GraphModule:
        state = self._state
        if state.quantized is not None and precision == state.quantized.encodings.precision:
            return emit(state.quantized.graph, state.quantized.encodings, target)
        if precision in WEIGHT_PRECISIONS.values() and state.weights is not None:
            return state.weights.graph
        if describe_target(target).runtime == "tflite":
            return state.graph
        halves = {"float16": lambda: self._float16, "bfloat16": lambda: self._bfloat16}
        return halves[precision]() if precision in halves else state.graph

    def _file(
        self, target: Target, precision: Precision, graph: fx.GraphModule
    ) -> tuple[str, bytes]:
        """Return the file's name in the bundle and its content."""
        on_tflite = describe_target(target).runtime == "tflite"
        if precision == "dynamic_int8":
            if on_tflite:
                return "dynamic_int8.tflite", dynamic_tflite(self._tflite_float32)
            return "dynamic_int8.onnx", dynamic_onnx(self._onnx_float32)
        if self._state.quantized and precision == self._state.quantized.encodings.precision:
            return self._quantized_file(target, precision, graph)
        if precision in WEIGHT_PRECISIONS.values():
            return self._weights_file(target, precision)
        if on_tflite:
            half = precision == "float16"
            return f"{precision}.tflite", self._tflite_float16 if half else self._tflite_float32
        if precision == "bfloat16":
            return "bfloat16.onnx", self._to_onnx(graph, BFLOAT16_OPSET)
        half = precision == "float16"
        return f"{precision}.onnx", self._onnx_float16 if half else self._onnx_float32

    def _quantized_file(
        self, target: Target, precision: Precision, graph: fx.GraphModule
    ) -> tuple[str, bytes]:
        islands = has_float_islands(self._state)
        runtime = describe_target(target).runtime
        if runtime == "tflite":
            if precision == "int8_int16":
                return f"{precision}.tflite", to_tflite_int16(graph, self._inputs, islands)
            return f"{precision}.tflite", to_tflite(graph, self._inputs, True, islands)
        content = self._to_onnx(graph)
        if runtime == "ort" and islands:
            content = protect_float_layers(content)
        return f"{precision}.{target}.onnx", content

    def _weights_file(self, target: Target, precision: Precision) -> tuple[str, bytes]:
        network, runtime = self._state.weights, describe_target(target).runtime
        if network is None:
            raise ExportError(f"{precision} files need the stage quantize_weights in the recipe")
        if runtime == "tflite":
            content = to_tflite(network.graph, self._inputs, quantized=False)
            return f"{precision}.tflite", weights_for_tflite(content, network.weights)
        if runtime == "tensorrt":
            content = self._to_onnx(network.graph, BLOCK_OPSET)
            return f"{precision}.{target}.onnx", weights_for_tensorrt(content, network.weights)
        content = self._to_onnx(network.graph)
        return f"{precision}.{target}.onnx", weights_for_ort(content, network.weights)

    def _tolerance(
        self, name: str, graph: fx.GraphModule, target: Target, precision: Precision
    ) -> float:
        """Return how far a runtime's outputs may be from the torch graph's.

        Raises:
            ExportError: the graph's outputs are not finite on the example inputs, or torch cannot
                compute them, so that there is nothing to compare with.
        """
        try:
            expected = run_graph(graph, tuple(x.numpy() for x in self._inputs))
        except NotImplementedError as error:
            raise ExportError(
                f"torch cannot compute the {precision} network here: {first_line(error)}"
            ) from error
        if not all(np.isfinite(y).all() for y in expected):
            raise ExportError(f"{name} computes values that are not finite")
        steps = output_steps(self._state, target) if precision in INTEGERS else None
        if steps:
            task = self._state.subject.task
            inputs = next(iter(task.batches("calibration", ROUNDING_NOISE_SAMPLES))).inputs
            noise = ROUNDING_NOISE_FACTOR * rounding_noise(graph, inputs)
            allowed = INT8_TOLERANCE_LSB if precision == "int8" else INT16_TOLERANCE_LSB
            return max(allowed * max(steps), noise)
        largest = max(float(np.abs(y).max()) for y in expected)
        return FLOAT_TOLERANCE.get(precision, FLOAT_TOLERANCE["float16"]) * max(1.0, largest)

    def _to_onnx(self, graph: fx.GraphModule, opset: int = OPSET) -> bytes:
        return to_onnx(graph, self._inputs, self._state.subject.free_axes, opset)

    @cached_property
    def _float16(self) -> fx.GraphModule:
        return to_float16(self._state.graph)

    @cached_property
    def _bfloat16(self) -> fx.GraphModule:
        return to_bfloat16(self._state.graph)

    @cached_property
    def _onnx_float32(self) -> bytes:
        return self._to_onnx(self._state.graph)

    @cached_property
    def _onnx_float16(self) -> bytes:
        return self._to_onnx(self._float16)

    @cached_property
    def _tflite_float32(self) -> bytes:
        return to_tflite(self._state.graph, self._inputs, quantized=False)

    @cached_property
    def _tflite_float16(self) -> bytes:
        return to_float16_weights(self._tflite_float32)


def _has(target: Target, precision: Precision) -> bool:
    """Say whether a target has files of a precision, or is refused them with a reason."""
    wanted = describe_target(target)
    return precision in wanted.precisions or precision in wanted.refused


def has_float_islands(state: ModelState) -> bool:
    """Say whether a quantized network computes in float anywhere."""
    if state.quantized is None:
        return False
    graph, encodings = state.quantized.graph.graph, state.quantized.encodings
    return bool(float_islands(graph, encodings))


def output_steps(state: ModelState, target: Target) -> list[float]:
    """Return the quantization steps of the quantized outputs of a model state."""
    if state.quantized is None:
        return []
    graph, encodings = state.quantized.graph, state.quantized.encodings
    chosen = quantized_nodes(graph.graph, encodings)
    outputs = [n.name for n in output_nodes(graph) if n in chosen]
    return [grid_of(encodings, name, target).scale for name in outputs]


def rounding_noise(graph: fx.GraphModule, inputs: tuple[Array, ...]) -> float:
    """Return the largest difference in any output between two orders of summation in torch.

    Both are right to float32's last digits; what they disagree on are roundings of a quantized
    graph that fall the other way, and what follows from them.
    """
    usual = run_graph(graph, inputs)
    with without_onednn():
        other = run_graph(graph, inputs)
    return max(float(np.abs(a - b).max()) for a, b in zip(usual, other, strict=True))


def run_graph(graph: fx.GraphModule, inputs: tuple[Array, ...]) -> tuple[Floats, ...]:
    """Run a graph on float32 arrays [N, ...] and return its outputs as arrays.

    oneDNN has no float16 recurrent layer on many CPUs; torch's own code computes those.
    """
    recurrent = any(node.target in RECURRENT for node in graph.graph.nodes)
    half = recurrent and any(p.dtype == torch.float16 for p in graph.parameters())
    kernels = without_onednn() if half else nullcontext()
    with torch.no_grad(), kernels:
        outputs = as_tuple(graph(*(torch.tensor(x) for x in inputs)))
    return tuple(y.float().numpy() for y in outputs)
