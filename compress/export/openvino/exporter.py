"""Files for OpenVINO: ONNX, with the pairs that ONNX Runtime fuses."""

from torch import fx

from edgedl.compress.export.exporter import FileSource
from edgedl.compress.export.onnx.exporter import OnnxExporter
from edgedl.compress.export.onnx.weights import write_weights
from edgedl.compress.export.onnx.write import BLOCK_OPSET
from edgedl.compress.targets.target import Target
from edgedl.runtime.backends.openvino import executed_operators
from edgedl.runtime.precision import BFLOAT16, FLOAT32, Precision

# Operators that change no value, or turn floats into integers and back.
MOVING = {
    "Broadcast",
    "Concatenation",
    "Const",
    "Convert",
    "FakeQuantize",
    "Gather",
    "Input",
    "Output",
    "Pooling",
    "Reorder",
    "Reshape",
    "Split",
    "StridedSlice",
    "Transpose",
}


class OpenVINOExporter(OnnxExporter):
    """Writes what every reader of ONNX takes; the runtime rounds floats by itself."""

    def path(self, target: Target, precision: Precision) -> str:
        """Return the float32 file's name for bfloat16, too: the runtime rounds it."""
        return super().path(target, FLOAT32 if precision is BFLOAT16 else precision)

    def floats(self, source: FileSource, precision: Precision = FLOAT32) -> bytes:
        """Return a float file; bfloat16 is how the float32 file is computed."""
        return super().floats(source, FLOAT32 if precision is BFLOAT16 else precision)

    def weights(self, source: FileSource, graph: fx.GraphModule) -> bytes:
        """Return a file whose weights are integers behind ``DequantizeLinear``."""
        model = self.export(source, graph, BLOCK_OPSET)
        return write_weights(model, source.weights.weights, kernels=False)

    def float_operators(self, content: bytes) -> list[str]:
        """Return what the compiled model computes in float."""
        found = executed_operators(content)
        return sorted({kind for kind, precision in found if precision == "f32"} - MOVING)


EXPORTER = OpenVINOExporter()
