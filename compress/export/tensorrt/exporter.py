"""Files for TensorRT: its parser and builder check them, and two stand-ins compute them."""

from collections.abc import Sequence

from torch import fx

from edgedl.compress.errors import first_line
from edgedl.compress.export.exporter import FileSource, StandIn, Verdict
from edgedl.compress.export.onnx.exporter import OnnxExporter
from edgedl.compress.export.onnx.weights import write_weights
from edgedl.compress.export.onnx.write import BLOCK_OPSET
from edgedl.compress.export.tensorrt.check import check_tensorrt
from edgedl.compress.export.tensorrt.integer_emulator import IntegerEmulator
from edgedl.compress.export.tensorrt.padding import fold_padding
from edgedl.compress.targets.target import Target
from edgedl.runtime.backend import Array, Session
from edgedl.runtime.backends.ort import OnnxRuntimeBackend
from edgedl.runtime.bundle.manifest import TensorSpec
from edgedl.runtime.bundle.shape_range import ShapeRange
from edgedl.runtime.errors import BackendUnavailableError
from edgedl.runtime.precision import INT8, Precision
from edgedl.runtime.tensorrt.profiles import profile


class TensorRTExporter(OnnxExporter):
    """Writes ONNX as TensorRT reads it."""

    def quantized(self, model: bytes, source: FileSource, target: Target) -> bytes:
        """Take padding into the convolutions behind it."""
        return fold_padding(model)

    def weights(self, source: FileSource, graph: fx.GraphModule) -> bytes:
        """Return a file whose weights are integers behind ``DequantizeLinear``."""
        model = self.export(source, graph, BLOCK_OPSET)
        return write_weights(model, source.weights.weights, kernels=False)

    def profile(self, inputs: Sequence[TensorSpec]) -> tuple[ShapeRange, ...]:
        """Return the sizes that the file is checked for, and that an engine has by default."""
        return profile(inputs)

    def check(self, content: bytes) -> Verdict | None:
        """Return what NVIDIA's parser and builder say, or the rules that they enforce."""
        return check_tensorrt(content)

    def stand_in(
        self, content: bytes, precision: Precision, tensors: Sequence[str] = ()
    ) -> StandIn | None:
        """Return an emulator of int8 kernels, or ONNX Runtime with optimizations off for floats."""
        if precision is INT8:
            return StandIn("integer emulator, no GPU", IntegerEmulator(content, tensors))
        runtime = OnnxRuntimeBackend().available().detail
        return StandIn(
            f"{runtime}, optimizations off, for TensorRT", _UnoptimizedOnnxRuntime(content)
        )


class _UnoptimizedOnnxRuntime(Session):
    """Stands in for TensorRT, computing a float file node by node."""

    def __init__(self, model: bytes) -> None:
        import onnxruntime
        from onnxruntime.capi.onnxruntime_pybind11_state import InvalidGraph, NotImplemented

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Its errors have no class of their own in common.
        try:
            self._session = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
        except (InvalidGraph, NotImplemented) as error:
            raise BackendUnavailableError(
                f"ONNX Runtime cannot stand in for TensorRT: {first_line(error)}"
            ) from error
        self._names = [i.name for i in self._session.get_inputs()]

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Run one inference on arrays in the order of the file's inputs."""
        outputs: list[Array] = self._session.run(None, dict(zip(self._names, inputs, strict=True)))
        return outputs

    def close(self) -> None:
        """Keep nothing that must be released."""


EXPORTER = TensorRTExporter()
