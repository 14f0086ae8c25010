"""Turn a model state into the files each runtime loads."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from torch import fx

from edgedl.compress.encodings.emit import emit
from edgedl.compress.encodings.placement import float_islands
from edgedl.compress.errors import ExportError
from edgedl.compress.export.dynamic import dynamic_onnx, dynamic_tflite
from edgedl.compress.export.float_types import to_bfloat16, to_float16
from edgedl.compress.export.onnx.weights import weights_for_ort, weights_for_tensorrt
from edgedl.compress.export.onnx.write import (
    BFLOAT16_OPSET,
    BLOCK_OPSET,
    HALF_OPSET,
    OPSET,
    describe_onnx,
    protect_float_layers,
    to_onnx,
)
from edgedl.compress.export.tensorrt.check import check_tensorrt
from edgedl.compress.export.tflite.int16 import to_tflite_int16
from edgedl.compress.export.tflite.weights import weights_for_tflite
from edgedl.compress.export.tflite.write import describe_tflite, to_float16_weights, to_tflite
from edgedl.compress.graph.passes.transposed_convolution import join_transposed_convolutions
from edgedl.compress.parity.tolerance import allowed_differences
from edgedl.compress.state import ModelState
from edgedl.compress.targets.target import MAX_WEIGHT_BITS, Target, describe_target, target_name
from edgedl.runtime.bundle.manifest import Artifact, Precision

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

    def __init__(self, state: ModelState, only: tuple[Precision, ...] | None = None) -> None:
        """Take the example inputs from the calibration split.

        ``only`` restricts the plan to some precisions, besides the reference.
        """
        self._state = state
        self._only = only
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
            name = f"{target_name(target)}-{precision}"
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
        if self._state.dynamic_bits is not None:
            precisions = (*precisions, "dynamic_int8")
        if self._state.weights is not None:
            precisions = (*precisions, WEIGHT_PRECISIONS[self._state.weights.bits])
        wanted = [
            (target, precision)
            for target in targets
            for precision in precisions
            if _has(target, precision) and (self._only is None or precision in self._only)
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
        allowed = allowed_differences(self._state, graph, target, precision)
        artifact = Artifact(name, runtime, precision, path, inputs, outputs, allowed, check=check)
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
        return halves[precision]() if precision in halves else self._joined

    def _file(
        self, target: Target, precision: Precision, graph: fx.GraphModule
    ) -> tuple[str, bytes]:
        """Return the file's name in the bundle and its content."""
        on_tflite = describe_target(target).runtime == "tflite"
        if precision == "dynamic_int8":
            if on_tflite:
                return "dynamic_int8.tflite", dynamic_tflite(self._tflite_float32)
            bits = self._state.dynamic_bits or MAX_WEIGHT_BITS
            return "dynamic_int8.onnx", dynamic_onnx(self._onnx_float32, bits)
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
            path = _tflite_path(target, precision)
            if precision == "int8_int16":
                return path, to_tflite_int16(graph, self._inputs, islands)
            return path, to_tflite(graph, self._inputs, True, islands)
        content = self._to_onnx(graph)
        if runtime == "ort" and islands:
            content = protect_float_layers(content)
        return f"{precision}.{target_name(target)}.onnx", content

    def _weights_file(self, target: Target, precision: Precision) -> tuple[str, bytes]:
        network, runtime = self._state.weights, describe_target(target).runtime
        if network is None:
            raise ExportError(f"{precision} files need the stage quantize_weights in the recipe")
        if runtime == "tflite":
            content = to_tflite(
                network.graph, self._inputs, quantized=False, weights_as_they_are=True
            )
            return _tflite_path(target, precision), weights_for_tflite(content, network.weights)
        path = f"{precision}.{target_name(target)}.onnx"
        if runtime == "tensorrt":
            content = self._to_onnx(network.graph, BLOCK_OPSET)
            return path, weights_for_tensorrt(content, network.weights)
        return path, weights_for_ort(self._to_onnx(network.graph), network.weights)

    def _to_onnx(self, graph: fx.GraphModule, opset: int = OPSET) -> bytes:
        return to_onnx(graph, self._inputs, self._state.subject.free_axes, opset)

    @cached_property
    def _joined(self) -> fx.GraphModule:
        """What float files for ONNX Runtime are made of."""
        return join_transposed_convolutions(self._state.graph)

    @cached_property
    def _float16(self) -> fx.GraphModule:
        return to_float16(self._joined)

    @cached_property
    def _bfloat16(self) -> fx.GraphModule:
        # TensorRT's builder takes no transposed convolution of bfloat16.
        return to_bfloat16(self._state.graph)

    @cached_property
    def _onnx_float32(self) -> bytes:
        return self._to_onnx(self._joined)

    @cached_property
    def _onnx_float16(self) -> bytes:
        return self._to_onnx(self._float16, HALF_OPSET)

    @cached_property
    def _tflite_float32(self) -> bytes:
        return to_tflite(self._state.graph, self._inputs, quantized=False)

    @cached_property
    def _tflite_float16(self) -> bytes:
        return to_float16_weights(self._tflite_float32)


def _tflite_path(target: Target, precision: Precision) -> str:
    of_its_own = "" if target == "tflite" else f".{target_name(target)}"
    return f"{precision}{of_its_own}.tflite"


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
