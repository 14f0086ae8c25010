"""ONNX files as somebody else's tool may write them."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Axis = int | str | None


def value(name: str, shape: Sequence[Axis] | None, kind: int = TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Mapping[str, object] | None = None,
    name: str = "made",
) -> onnx.GraphProto:
    """Return a graph; constants are arrays or whole tensors."""
    stored = [
        x if isinstance(x, TensorProto) else numpy_helper.from_array(np.asarray(x), key)
        for key, x in (constants or {}).items()
    ]
    return helper.make_graph(nodes, name, inputs, outputs, stored)


def model(
    made: onnx.GraphProto,
    opset: int = 17,
    domains: Sequence[str] = (),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10, functions=functions)
