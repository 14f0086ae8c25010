"""Rules on what TensorRT refuses, misreads or runs slowly, told before any builder is asked.

Source: NVIDIA's TensorRT documentation, "Working with quantized types" and "ONNX operator support";
the texts of its parser. They are compared with that parser's verdicts in the tests.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto

from edgedl.compress.modelfile.onnx_shapes import own_inputs
from edgedl.runtime.bundle.shape_range import ShapeRange

PAIR = ("QuantizeLinear", "DequantizeLinear")
REFUSED = ("QLinearConv", "QLinearMatMul", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger")
# TensorRT 10.3, of JetPack 6.1 and 6.2, was made when the standard had these operator sets.
JETPACK6_OPSET = 20
# Of quantized values: what its kernels read.
READ = (TensorProto.INT8, TensorProto.INT4, TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT4E2M1)


def lint(model: onnx.ModelProto, profile: Sequence[ShapeRange] | None = None) -> list[str]:
    """Return what TensorRT would refuse or misread, one line each.

    Args:
        model: the file.
        profile: sizes that an engine is built for; None where they are not known yet.
    """
    constants = {t.name: t for t in model.graph.initializer}
    problems = [] if profile is None else _lint_sizes(model, profile)
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            what = f"operator {node.op_type} ('{node.name}') of the domain '{node.domain}'"
            problems.append(f"{what} needs a plugin")
        elif node.op_type in REFUSED:
            problems.append(f"operator {node.op_type} ('{node.name}') is not supported")
        elif node.op_type in PAIR:
            problems += _lint_pair(node, constants)
    return problems


def remarks(model: onnx.ModelProto) -> list[str]:
    """Return what makes a file slow or too new for some devices, one line each."""
    found = []
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset > JETPACK6_OPSET:
        found.append(
            f"it has opset {opset}: TensorRT 10.3 (JetPack 6) reads up to {JETPACK6_OPSET}"
        )
    made_by = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        source = made_by.get(node.input[0]) if node.op_type == "Relu" else None
        layer = source
        while layer is not None and layer.op_type in PAIR:
            layer = made_by.get(layer.input[0])
        if layer is not source and layer is not None and layer.op_type in ("Conv", "Add"):
            found.append(
                f"a Q/DQ pair between '{layer.name}' and '{node.name}' keeps TensorRT from fusing "
                "them"
            )
    return found


def _lint_sizes(model: onnx.ModelProto, profile: Sequence[ShapeRange]) -> list[str]:
    known = {sizes.input for sizes in profile}
    free = [
        value.name
        for value in own_inputs(model.graph)
        if any(not d.HasField("dim_value") for d in value.type.tensor_type.shape.dim)
    ]
    return [f"input '{name}' has free sizes and no profile" for name in free if name not in known]


def _lint_pair(node: onnx.NodeProto, constants: dict[str, TensorProto]) -> list[str]:
    problems = []
    stored = constants.get(node.input[0])
    if stored is not None and stored.data_type == TensorProto.INT32:
        problems.append(f"'{node.name}' dequantizes an int32 bias")
    scale = constants.get(node.input[1])
    if scale is not None and not (_numbers(scale) > 0).all():
        problems.append(f"'{node.name}' has a scale that is not positive")
    if len(node.input) < 3:
        if node.op_type == "QuantizeLinear":
            problems.append(f"'{node.name}' has no zero point, so its type is uint8")
        return problems
    zero_point = constants.get(node.input[2])
    if zero_point is None:
        return [*problems, f"the zero point of '{node.name}' is not a constant"]
    if zero_point.data_type == TensorProto.UINT8:
        problems.append(f"'{node.name}' is uint8, which TensorRT silently reads as int8")
    elif zero_point.data_type not in (*READ, TensorProto.INT32):
        kind = TensorProto.DataType.Name(zero_point.data_type).lower()
        problems.append(f"'{node.name}' is {kind}, which TensorRT has no kernels for")
    if _numbers(zero_point).any():
        problems.append(f"'{node.name}' has a zero point other than 0")
    return problems


def _numbers(tensor: TensorProto) -> np.ndarray:
    return onnx.numpy_helper.to_array(tensor)
