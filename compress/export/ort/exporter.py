"""Files for ONNX Runtime."""

import onnx
from torch import fx

from edgedl.compress.export.exporter import FileSource
from edgedl.compress.export.onnx.exporter import OnnxExporter
from edgedl.compress.export.onnx.weights import write_weights
from edgedl.compress.export.ort.dynamic import dynamic_onnx, with_dynamic_lstms
from edgedl.compress.export.ort.float_operators import float_operators
from edgedl.compress.targets.target import MAX_WEIGHT_BITS, Target


class OrtExporter(OnnxExporter):
    """Writes ONNX with what only ONNX Runtime has: its fused operators and its own quantizer."""

    def quantized(self, model: bytes, source: FileSource, target: Target) -> bytes:
        """Keep float layers between quantized ones float, but for LSTMs that go dynamic."""
        bits = source.state.dynamic_bits
        if bits is not None:
            model = with_dynamic_lstms(model, bits)
        return protect_float_layers(model) if source.has_float_islands(target) else model

    def weights(self, source: FileSource, graph: fx.GraphModule) -> bytes:
        """Return a file for the kernels that read blocks of integers."""
        return write_weights(self.export(source, graph), source.weights.weights, kernels=True)

    def running(self, source: FileSource) -> bytes:
        """Return what ONNX Runtime's quantizer makes of the float32 file."""
        return dynamic_onnx(self.floats(source), source.state.dynamic_bits or MAX_WEIGHT_BITS)

    def float_operators(self, content: bytes) -> list[str]:
        """Return what the optimized model computes in float."""
        return float_operators(content)


def protect_float_layers(model: bytes) -> bytes:
    """Return a model for ONNX Runtime whose float layers between quantized ones stay float.

    ONNX Runtime quantizes the weights of a float ``Conv`` or ``Gemm`` by itself when it stands
    between a dequantize and a quantize. It leaves its own ``FusedConv`` and ``FusedGemm`` alone,
    which compute the same.
    """
    loaded = onnx.load_from_string(model)
    dequantized = {
        name
        for node in loaded.graph.node
        if node.op_type == "DequantizeLinear"
        for name in node.output
    }
    protected = [
        node
        for node in loaded.graph.node
        if node.op_type in ("Conv", "Gemm")
        and node.input[0] in dequantized
        and node.input[1] not in dequantized
    ]
    for node in protected:
        if node.op_type == "Gemm":
            # FusedGemm must have an activation; this one is the identity.
            node.attribute.append(onnx.helper.make_attribute("activation", "LeakyRelu"))
            node.attribute.append(onnx.helper.make_attribute("activation_alpha", 1.0))
        node.op_type, node.domain = f"Fused{node.op_type}", "com.microsoft"
    if protected:
        loaded.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return bytes(loaded.SerializeToString())


EXPORTER = OrtExporter()
