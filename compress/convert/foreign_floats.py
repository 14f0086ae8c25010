"""Write a file of half-floats as one that computes in float32.

edgedl's pairs have float32 scales, and ONNX's operators take one float type at a time.
"""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgedl.compress.modelfile.onnx_graphs import every_graph, rename_reads
from edgedl.compress.modelfile.onnx_shapes import infer_shapes, own_inputs

_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_FLOATS = (TensorProto.FLOAT, *_HALVES)
# Attributes that hold the number of a type.
_TYPES = ("to", "dtype", "output_dtype", "precision")


def widened(name: str) -> str:
    """Return the name of what a half-float input is in float32."""
    return f"{name}_float32"


def in_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model that computes in float32 what another one computes in half-floats.

    Its inputs and outputs keep their types; conversions between float types are gone. A model
    without half-floats is returned as it is.
    """
    if not any(number in _HALVES for number in _numbers_of_types(model.graph)):
        return model
    types = {v.name: v.type.tensor_type.elem_type for v in _values(infer_shapes(model).graph)}
    types |= {t.name: t.data_type for t in model.graph.initializer}
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    for graph in every_graph(wide.graph):
        _widen_constants(graph)
        _drop_conversions(graph, types)
    _keep_types(wide.graph)
    return wide


def _numbers_of_types(model_graph: onnx.GraphProto) -> Iterator[int]:
    for graph in every_graph(model_graph):
        yield from (tensor.data_type for tensor in graph.initializer)
        yield from (v.type.tensor_type.elem_type for v in (*graph.input, *graph.output))
        for node in graph.node:
            yield from (a.i for a in node.attribute if a.name in _TYPES)
            yield from (a.t.data_type for a in node.attribute if a.HasField("t"))


def _values(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    for part in every_graph(graph):
        yield from (*part.input, *part.value_info, *part.output)


def _widen_constants(graph: onnx.GraphProto) -> None:
    """Hold every constant, and every type that an operator is told, in float32."""
    del graph.value_info[:]
    for tensor in graph.initializer:
        _widen(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _widen(attribute.t)
            elif attribute.name in _TYPES and attribute.i in _HALVES:
                attribute.i = TensorProto.FLOAT


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in _HALVES:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _drop_conversions(graph: onnx.GraphProto, types: dict[str, int]) -> None:
    """Leave out what turns one float type into another."""
    given = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    renamed: dict[str, str] = {}
    for node in graph.node:
        to = next((a.i for a in node.attribute if a.name == "to"), None)
        floats = to == TensorProto.FLOAT and types.get(node.input[0] if node.input else "")
        if node.op_type != "Cast" or floats not in _FLOATS:
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
        elif node.output[0] in given:
            kept.append(helper.make_node("Identity", node.input, node.output, node.name))
        else:
            renamed[node.output[0]] = renamed.get(node.input[0], node.input[0])
    for node in kept:
        rename_reads(node, renamed)
    del graph.node[:]
    graph.node.extend(kept)


def _keep_types(graph: onnx.GraphProto) -> None:
    """Convert half-float inputs at once, and outputs at last."""
    inputs = [v for v in own_inputs(graph) if v.type.tensor_type.elem_type in _HALVES]
    outputs = [v for v in graph.output if v.type.tensor_type.elem_type in _HALVES]
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in graph.node]
    for node in nodes:
        rename_reads(node, {v.name: widened(v.name) for v in (*inputs, *outputs)})
        for index, name in enumerate(node.output):
            if name in [v.name for v in outputs]:
                node.output[index] = widened(name)
    first = [_cast(v.name, widened(v.name), TensorProto.FLOAT) for v in inputs]
    last = [_cast(widened(v.name), v.name, v.type.tensor_type.elem_type) for v in outputs]
    del graph.node[:]
    graph.node.extend([*first, *nodes, *last])


def _cast(read: str, written: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [read], [written], f"{written}_cast", to=to)
