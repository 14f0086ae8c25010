"""Where an ONNX file keeps its constants: as initializers, or as nodes of their own."""

import onnx

from edgedl.compress.modelfile.onnx_graphs import every_graph

# Of types of which several values share a byte.
_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}


def store_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose constant tensors are all initializers, none a Constant node.

    Constants that are no plain tensors (sparse ones, strings, single numbers) stay nodes.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for graph in every_graph(copy.graph):
        _store_constants(graph)
    return copy


def stored_bytes(tensor: onnx.TensorProto) -> int:
    """Return the bytes of a tensor's values as a file packs them.

    >>> stored_bytes(onnx.helper.make_tensor("w", onnx.TensorProto.INT4, [3, 3], [1] * 9))
    5
    """
    if tensor.data_type == onnx.TensorProto.STRING:
        return sum(len(text) for text in tensor.string_data)
    values = 1
    for size in tensor.dims:
        values *= size
    bits = _BITS.get(onnx.TensorProto.DataType.Name(tensor.data_type))
    if bits is None:
        bits = 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return -(-values * bits // 8)


def _store_constants(graph: onnx.GraphProto) -> None:
    kept = []
    for node in graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type != "Constant" or value is None:
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
            continue
        graph.initializer.add().CopyFrom(value)
        graph.initializer[-1].name = node.output[0]
    del graph.node[:]
    graph.node.extend(kept)
