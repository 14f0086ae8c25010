"""What a file still computes in float, once ONNX Runtime has fused what it can."""

import tempfile
from pathlib import Path

import onnx
import onnxruntime

from edgedl.compress.export.onnx.moving import MOVING_NODES

# ONNX Runtime's integer operators, by how their names begin.
_INTEGER = ("QLinear", "QGemm", "MatMulInteger", "ConvInteger", "DynamicQuantize")


def float_operators(model: bytes) -> list[str]:
    """Return the kinds of operators that compute in float, sorted."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        graph = onnx.load(str(path)).graph
    # What is computed of shapes alone.
    sizes = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.INT64}
    integers: set[str] = set()
    found = set()
    for node in graph.node:
        if node.op_type == "Shape" or all(name in sizes for name in node.input):
            sizes.update(node.output)
        elif node.op_type == "QuantizeLinear" or node.op_type.startswith(("QLinear", "QGemm")):
            integers.update(node.output)
        elif node.op_type == "DequantizeLinear" or node.op_type.startswith(_INTEGER):
            # Integers go in, floats come out.
            continue
        elif node.input[0] in integers:
            # Operators such as Resize and ReduceMax take integers as they are.
            integers.update(node.output)
        else:
            found.add(node.op_type)
    return sorted(found - MOVING_NODES)
