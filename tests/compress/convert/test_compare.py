"""How far two files are apart, on outputs that are worked out by hand."""

import math

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedl.compress.convert.compare import Agreement, agreement

X = (np.array([[3.0, 1.0], [2.0, 4.0]], np.float32),)


def times(factors: list[float]) -> bytes:
    """A file of the product of x [N, 2] and two factors."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "k"], ["y"])],
        "times",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(np.array(factors, np.float32), "k")],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


@pytest.mark.parametrize(
    ("first", "second", "decibels", "same", "far"),
    [
        # 30 against 0.05 ** 2 * 13; against 13, and the first row predicts otherwise.
        ([1.0, 1.0], [1.05, 1.0], 10 * math.log10(30 / (0.0025 * 13)), 1.0, False),
        ([1.0, 1.0], [0.0, 1.0], 10 * math.log10(30 / 13), 0.5, True),
        ([0.0, 0.0], [0.0, 1.0], -math.inf, 0.0, True),
        ([1.0, 1.0], [math.nan, 1.0], math.nan, 0.5, True),
    ],
    ids=["near", "far", "nothing against something", "not a number"],
)
def test_distances(
    first: list[float], second: list[float], decibels: float, same: float, far: bool
) -> None:
    found = agreement(times(first), times(second), X)
    assert found.sqnr_db == pytest.approx(decibels, nan_ok=True, rel=1e-4)
    assert found.same_prediction == same
    assert found.far == far


def test_equal_files_have_no_distance() -> None:
    found = agreement(times([1.0, 1.0]), times([1.0, 1.0]), X)
    assert found == Agreement(2, None, 1.0)
    assert not found.far


def test_other_predictions_alone_are_far() -> None:
    assert Agreement(100, 40.0, 0.94).far
    assert not Agreement(100, 40.0, 0.95).far
    assert not Agreement(100, 40.0, None).far
