"""ONNX files that harm whoever loads or runs them. The crash and the exceptions are real."""

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edgedl.runtime.bundle.bundle import Bundle

HALF = TensorProto.FLOAT16


def onnx_file(
    bundle: Bundle, nodes: Sequence[tuple[str, str, str, dict[str, object]]], **constants: object
) -> bytes:
    """Return a chain of operators, from the input to the output that ONNX Runtime's files have.

    Args:
        bundle: has one input and one output.
        nodes: operator, names of its inputs, name of its output, attributes.
        constants: arrays.
    """
    artifact = bundle.artifact("ort-float32")
    (x,), (y,) = artifact.inputs, artifact.outputs
    names = {"x": x.name, "y": y.name}
    graph = helper.make_graph(
        [
            helper.make_node(
                kind, [names.get(i, i) for i in inputs.split()], [names.get(output, output)], **more
            )
            for kind, inputs, output, more in nodes
        ],
        "g",
        [helper.make_tensor_value_info(x.name, TensorProto.FLOAT, ["n", 3, 12, 12])],
        [helper.make_tensor_value_info(y.name, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    made: bytes = helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
    return made


def crashing_file(bundle: Bundle) -> bytes:
    """Return a recurrent layer in float16: ONNX Runtime 1.31 crashes while it optimises it."""
    return onnx_file(
        bundle,
        [
            ("Cast", "x", "half", {"to": HALF}),
            ("Reshape", "half shape", "rows", {}),
            ("Transpose", "rows", "steps", {"perm": [1, 0, 2]}),
            ("RNN", "steps w r", "states", {"hidden_size": 5}),
            ("Squeeze", "states axis", "state", {}),
            ("Transpose", "state", "back", {"perm": [1, 0, 2]}),
            ("MatMul", "back m", "product", {}),
            ("Cast", "product", "y", {"to": TensorProto.FLOAT}),
        ],
        shape=np.array([0, 36, 12]),
        w=np.ones((1, 5, 12), np.float16),
        r=np.ones((1, 5, 5), np.float16),
        m=np.ones((5, 2), np.float16),
        axis=np.array([1]),
    )


def raising_file(bundle: Bundle) -> bytes:
    """Return a reshape to a size that no input has: found out when it is run."""
    return onnx_file(bundle, [("Reshape", "x shape", "y", {})], shape=np.array([7, 11]))


def greedy_file(bundle: Bundle) -> bytes:
    """Return an array of 1.6 GB, and its largest value."""
    return onnx_file(
        bundle,
        [("Expand", "one shape", "large", {}), ("ReduceMax", "large", "y", {"keepdims": 1})],
        one=np.ones((1, 1), np.float32),
        shape=np.array([20_000, 20_000]),
    )


def endless_file(bundle: Bundle) -> bytes:
    """Return a loop of 2^62 rounds around a sum that they need."""
    artifact = bundle.artifact("ort-float32")
    (x,), (y,) = artifact.inputs, artifact.outputs
    body = helper.make_graph(
        [helper.make_node("Add", ["a", "a"], ["b"]), helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("a", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, None),
        ],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["rounds", "begin", x.name], [y.name], body=body)],
        "g",
        [helper.make_tensor_value_info(x.name, TensorProto.FLOAT, ["n", 3, 12, 12])],
        [helper.make_tensor_value_info(y.name, TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.array(2**62), "rounds"),
            numpy_helper.from_array(np.array(True), "begin"),
        ],
    )
    opset = [helper.make_opsetid("", 18)]
    made: bytes = helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
    return made
