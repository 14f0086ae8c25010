"""Where an ONNX file keeps its constants: as initializers, or as nodes of their own."""

import onnx


def store_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose constant tensors are all initializers, none a Constant node.

    Constants that are no plain tensors (sparse ones, strings, single numbers) stay nodes.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = []
    for node in copy.graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type != "Constant" or value is None:
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
            continue
        copy.graph.initializer.add().CopyFrom(value)
        copy.graph.initializer[-1].name = node.output[0]
    del copy.graph.node[:]
    copy.graph.node.extend(kept)
    return copy
