"""The rewrites of an ONNX model before it becomes a file, in order."""

from collections.abc import Callable, Sequence

import onnx

FilePass = Callable[[onnx.ModelProto], None]


def to_file(model: onnx.ModelProto) -> bytes:
    """Return a model, rewritten in place and checked, as a file."""
    for rewrite in ORDER:
        rewrite(model)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def pool_mean_to_global_average(model: onnx.ModelProto) -> None:
    """Write ``ReduceMean`` of [N, C, H, W] over height and width as ``GlobalAveragePool``.

    ONNX Runtime has an int8 kernel for the latter only. Ranks are read from ``value_info``.
    """
    graph = model.graph
    values = [*graph.value_info, *graph.input]
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in values}
    constants = {t.name: t for t in graph.initializer}
    for node in graph.node:
        if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in constants:
            continue
        axes = onnx.numpy_helper.to_array(constants[node.input[1]]).tolist()
        keepdims = next((a.i for a in node.attribute if a.name == "keepdims"), 1)
        spatial = sorted(axes) in ([2, 3], [-2, -1]) and ranks.get(node.input[0]) == 4
        if spatial and keepdims:
            node.op_type = "GlobalAveragePool"
            del node.input[1:]
            del node.attribute[:]


def drop_unused_constants(model: onnx.ModelProto) -> None:
    """Drop the constants that no node reads."""
    used = {name for node in model.graph.node for name in node.input}
    kept = [t for t in model.graph.initializer if t.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def strip(model: onnx.ModelProto) -> None:
    """Drop stack traces, shapes of inner values and descriptions."""
    graph = model.graph
    del model.metadata_props[:]
    del graph.metadata_props[:]
    del graph.value_info[:]
    items: Sequence[onnx.NodeProto | onnx.TensorProto | onnx.ValueInfoProto] = [
        *graph.node,
        *graph.initializer,
        *graph.input,
        *graph.output,
    ]
    for item in items:
        del item.metadata_props[:]
        item.doc_string = ""


ORDER: tuple[FilePass, ...] = (
    # Before the ranks of inner values go.
    pool_mean_to_global_average,
    # The axes of those means are among them.
    drop_unused_constants,
    strip,
)
