"""The rewrites of ONNX models one after another: what each is for, and that the numbers stay."""

from collections import Counter

import numpy as np
import onnx
from file_readers import run_onnx
from small_networks import noise

from edgedl.compress.export.onnx.file_passes import ORDER, to_file

SHAPE = ("N", 4, 5, 6)


def described(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model with all that an exporter writes around the operators."""
    for node in model.graph.node:
        node.doc_string = "line 12"
        node.metadata_props.add(key="stack", value="trace")
    model.metadata_props.add(key="made by", value="somebody")
    return model


def averaged(axes: list[int], keepdims: int, shape: tuple = SHAPE) -> onnx.ModelProto:
    h = onnx.helper
    sizes = [None] * (len(shape) - (0 if keepdims else len(axes)))
    nodes = [
        h.make_node("Relu", ["x"], ["r"]),
        h.make_node("ReduceMean", ["r", "axes"], ["y"], keepdims=keepdims),
    ]
    graph = h.make_graph(
        nodes,
        "net",
        [h.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [h.make_tensor_value_info("y", onnx.TensorProto.FLOAT, sizes)],
        [onnx.numpy_helper.from_array(np.array(axes, np.int64), "axes")],
        value_info=[h.make_tensor_value_info("r", onnx.TensorProto.FLOAT, shape)],
    )
    opset = [h.make_opsetid("", 20)]
    return described(h.make_model(graph, opset_imports=opset, ir_version=9))


def test_a_mean_over_a_picture_is_a_pool() -> None:
    model = averaged([3, 2], keepdims=1)
    (before,) = run_onnx(model.SerializeToString(), (noise(3, 4, 5, 6).numpy(),))
    file = to_file(model)
    read = onnx.load_from_string(file)
    assert Counter(n.op_type for n in read.graph.node) == {"Relu": 1, "GlobalAveragePool": 1}
    assert not read.graph.initializer
    (found,) = run_onnx(file, (noise(3, 4, 5, 6).numpy(),))
    np.testing.assert_allclose(found, before, rtol=1e-6)


def test_other_means_keep_their_axes() -> None:
    for axes, keepdims, shape in (
        ([2, 3], 0, SHAPE),
        ([1, 2], 1, SHAPE),
        ([-2, -1], 1, ("N", 4, 5)),
    ):
        read = onnx.load_from_string(to_file(averaged(axes, keepdims, shape)))
        assert [n.op_type for n in read.graph.node] == ["Relu", "ReduceMean"]
        assert [t.name for t in read.graph.initializer] == ["axes"]


def test_nothing_but_the_network_is_left() -> None:
    model = averaged([2, 3], keepdims=0)
    file = to_file(model)
    for word in (b"line 12", b"trace", b"somebody"):
        assert word in described(averaged([2, 3], 0)).SerializeToString()
        assert word not in file
    assert not onnx.load_from_string(file).graph.value_info


def test_every_pass_finds_nothing_more_in_a_file() -> None:
    file = to_file(averaged([2, 3], keepdims=1))
    for rewrite in ORDER:
        model = onnx.load_from_string(file)
        rewrite(model)
        assert model.SerializeToString() == file
