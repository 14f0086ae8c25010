"""The ends between which operators are said to give their results, against ONNX Runtime's."""

from typing import Any

import numpy as np
import pytest
from file_readers import run_onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgedl.compress.convert.grid_ends import bounds_of

OPSETS = [helper.make_opsetid("", 17)]


def node(kind: str, reads: str, gives: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, reads.split(), [gives], gives, **attributes)


@pytest.mark.parametrize(
    "operator",
    [
        node("Add", "a b", "y"),
        node("Mul", "a b", "y"),
        node("Concat", "a b", "y", axis=1),
        node("Relu", "a", "y"),
        helper.make_node("Clip", ["a", "", "one"], ["y"]),
        node("Clip", "a minus_one", "y"),
        node("Clip", "a minus_one one", "y"),
        node("Sigmoid", "a", "y"),
        node("Tanh", "a", "y"),
        node("MaxPool", "a", "y", kernel_shape=[3, 3], pads=[1] * 4),
        node("AveragePool", "b", "y", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1),
        node("ReduceMean", "a", "y", axes=[2, 3]),
        helper.make_node("Resize", ["b", "", "scales"], ["y"], mode="linear"),
        helper.make_node("Resize", ["b", "", "scales"], ["y"], mode="cubic"),
        node("Pad", "b pads", "y"),
        node("Pad", "b pads six", "y"),
        node("Neg", "a", "y"),
    ],
    ids=lambda n: n.op_type,
)
def test_bounds_hold_what_operators_compute(operator: NodeProto) -> None:
    stored = {
        **{"one": np.float32(1), "minus_one": np.float32(-1), "six": np.float32(6)},
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "scales": np.array([1.0, 1.0, 2.0, 3.0], np.float32),
    }
    ends = {"a": (-1.5, 2.0), "b": (0.0, 3.0)}
    ends |= {n: (min(0.0, v.min()), max(0.0, v.max())) for n, v in stored.items()}
    graph = helper.make_graph(
        [operator],
        "one",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2, 9, 9]) for n in "ab"],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=OPSETS, ir_version=8).SerializeToString()
    r = np.random.default_rng(1)
    given = tuple(r.uniform(*ends[n], (1, 2, 9, 9)).astype(np.float32) for n in "ab")
    (found,) = run_onnx(model, given)
    lowest, highest = bounds_of(operator, ends.__getitem__)
    assert lowest - 1e-6 <= found.min()
    assert found.max() <= highest + 1e-6
    known = operator.op_type != "Neg" and b"cubic" not in [a.s for a in operator.attribute]
    assert bool(np.isfinite([lowest, highest]).any()) == known
