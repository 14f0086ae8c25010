"""The shapes of an ONNX file's values: what it says of them, and what follows from that."""

from collections.abc import Iterator

import onnx
from onnx import shape_inference

from edgedl.compress.modelfile.onnx_graphs import every_graph

# Sizes of the axes; None where free.
Shape = tuple[int | None, ...]


def shape_of(value: onnx.ValueInfoProto) -> Shape | None:
    """Return the shape that a file declares of a value; None where it declares none.

    An axis is free if it has a name instead of a size, or neither, or a negative size, which some
    exporters write.
    """
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(_size(axis) for axis in tensor.shape.dim)


def own_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Return what a graph is given, in its order; older files list their weights among that."""
    stored = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in stored]


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy that declares the shapes that follow from those of its inputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for axis in _axes(copy.graph):
        if axis.HasField("dim_value") and axis.dim_value < 0:
            # Inference would compute with a negative size.
            axis.ClearField("dim_value")
    return shape_inference.infer_shapes(copy, data_prop=True)


def with_one_sample(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose inputs are of one sample; its other free axes stay free.

    The axes of samples are those that have "batch" in their name. Where none has, it is the first
    axis of the first input of free length, with all that have its name, and every first axis that
    has no name.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    names = _names_of_samples(copy.graph)
    for value in own_inputs(copy.graph):
        first = list(value.type.tensor_type.shape.dim)[:1]
        for axis in first:
            if _size(axis) is None and not axis.dim_param:
                axis.dim_value = 1
    for axis in _axes(copy.graph):
        if axis.dim_param in names:
            axis.dim_value = 1
    return copy


def _names_of_samples(graph: onnx.GraphProto) -> set[str]:
    shapes = [list(value.type.tensor_type.shape.dim) for value in own_inputs(graph)]
    named = {axis.dim_param for shape in shapes for axis in shape if axis.dim_param}
    batches = {name for name in named if "batch" in name.lower()}
    firsts = [shape[0].dim_param for shape in shapes if shape and _size(shape[0]) is None]
    return batches or {name for name in firsts[:1] if name}


def _axes(graph: onnx.GraphProto) -> Iterator[onnx.TensorShapeProto.Dimension]:
    """Yield every axis that a file declares, in all its graphs."""
    for part in every_graph(graph):
        for value in (*part.input, *part.value_info, *part.output):
            yield from value.type.tensor_type.shape.dim


def _size(axis: onnx.TensorShapeProto.Dimension) -> int | None:
    fixed = axis.HasField("dim_value") and axis.dim_value >= 0
    return axis.dim_value if fixed else None
