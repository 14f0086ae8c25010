"""ONNX Runtime's own operators as standard ones of the same shapes, for shape inference alone."""

import onnx

from edgedl.compress.modelfile.integer_operators import INTEGER_OPERATORS
from edgedl.compress.modelfile.onnx_graphs import every_graph

# A standard operator whose output has the same shape, and how many of the inputs it reads.
_LIKE = {
    "FusedConv": ("Conv", 2),
    "FusedGemm": ("Gemm", 3),
    "FusedMatMul": ("MatMul", 2),
    "DynamicQuantizeMatMul": ("MatMul", 2),
    "DynamicQuantizeLSTM": ("LSTM", 3),
    "SimplifiedLayerNormalization": ("Identity", 1),
    "SkipLayerNormalization": ("Identity", 1),
    "SkipSimplifiedLayerNormalization": ("Identity", 1),
    "QuickGelu": ("Identity", 1),
    "FastGelu": ("Identity", 1),
    "BiasGelu": ("Identity", 1),
    "Gelu": ("Identity", 1),
}


def in_standard_form(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose shapes can be inferred behind ONNX Runtime's own operators, too."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for graph in every_graph(copy.graph):
        for node in graph.node:
            _rewrite(node, copy.graph)
    return copy


def _rewrite(node: onnx.NodeProto, graph: onnx.GraphProto) -> None:
    roles, settings = INTEGER_OPERATORS.get(node.op_type), _whole_numbers(node)
    transposes = any(name.startswith("trans") and value for name, value in settings.items())
    if roles is not None:
        _replace(node, roles.kind, roles.values(node))
    elif node.op_type == "MatMulNBits":
        weight = f"{node.output[0]}_weight_shape"
        sizes = [settings["K"], settings["N"]]
        number = onnx.TensorProto.FLOAT
        graph.input.append(onnx.helper.make_tensor_value_info(weight, number, sizes))
        _replace(node, "MatMul", [node.input[0], weight])
    elif node.op_type in _LIKE and not (node.op_type == "FusedMatMul" and transposes):
        kind, count = _LIKE[node.op_type]
        _replace(node, kind, list(node.input[:count]))


def _replace(node: onnx.NodeProto, kind: str, inputs: list[str]) -> None:
    del node.input[:]
    node.input.extend(inputs)
    if kind == "Identity":
        del node.output[1:]
    node.op_type, node.domain = kind, ""


def _whole_numbers(node: onnx.NodeProto) -> dict[str, int]:
    return {a.name: a.i for a in node.attribute if a.type == onnx.AttributeProto.INT}
