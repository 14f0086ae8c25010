"""Files for OpenVINO: ONNX, with the pairs that ONNX Runtime fuses."""

import onnx
from torch import fx

from edgedl.compress.export.exporter import FileSource
from edgedl.compress.export.onnx.exporter import OnnxExporter
from edgedl.compress.export.onnx.moving import MOVING_NODES
from edgedl.compress.export.onnx.weights import write_weights
from edgedl.compress.export.onnx.write import BLOCK_OPSET
from edgedl.compress.targets.target import Target
from edgedl.runtime.backends.openvino import executed_operators
from edgedl.runtime.precision import BFLOAT16, FLOAT32, Precision

# Kinds of the runtime's operators that change no value, or turn floats into integers and back.
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
# Kinds that stand for several nodes of a file at once: for none by name where they dequantize.
JOINED = {"Eltwise", "Subgraph"}


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
        """Return what the compiled model computes in float, by the names that ONNX has for it."""
        nodes = onnx.load_from_string(content).graph.node
        kinds = {name: node.op_type for node in nodes for name in (node.name, *node.output)}
        found: set[str] = set()
        for operator in executed_operators(content):
            if operator.precision == "f32" and operator.kind not in MOVING:
                known = {kinds[name] for name in operator.nodes if name in kinds}
                found |= known or {operator.kind} - JOINED
        return sorted(found - MOVING_NODES)


EXPORTER = OpenVINOExporter()
