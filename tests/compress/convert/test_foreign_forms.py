"""One quantized product, written in the ways that ONNX allows: all are read as the same."""

from typing import Any

import numpy as np
import onnx
import pytest
from file_readers import run_onnx
from onnx import TensorProto, helper, numpy_helper

from edgedl.compress.convert.compare import agreement
from edgedl.compress.convert.foreign import Grid, read_foreign
from edgedl.compress.convert.requantize import requantize
from edgedl.compress.targets.named import ORT, TENSORRT
from edgedl.runtime.errors import BadInputError

RNG = np.random.default_rng(0)
WEIGHT = RNG.integers(-127, 128, (8, 4)).astype(np.int8)
STEPS = RNG.uniform(0.001, 0.01, 4).astype(np.float32)
X = (RNG.normal(0, 2, (50, 8)).astype(np.float32),)


def product(zero: np.generic | None, axis: int = 1, nodes: bool = False, **pair: Any) -> bytes:
    """Return x W on grids: of x with a zero point stored or not, of W along an axis."""
    constants = {"s": np.float32(0.05), "w": WEIGHT, "t": STEPS, "v": np.zeros(4, np.int8)}
    grid = ["s"]
    if zero is not None:
        constants["z"] = zero
        grid.append("z")
    made = [
        helper.make_node("QuantizeLinear", ["x", *grid], ["q"], "quantize", **pair),
        helper.make_node("DequantizeLinear", ["q", *grid], ["d"], "dequantize"),
        helper.make_node("DequantizeLinear", ["w", "t", "v"], ["e"], "weight", axis=axis),
        helper.make_node("MatMul", ["d", "e"], ["y"], "product"),
    ]
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()]
    if nodes:
        made = [helper.make_node("Constant", [], [t.name], value=t) for t in tensors] + made
    graph = helper.make_graph(
        made,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [] if nodes else tensors,
    )
    opsets = [helper.make_opsetid("", 21)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("model", "zero"),
    [
        (product(np.uint8(128)), 128),
        (product(np.uint8(128), axis=-1), 128),
        (product(np.uint8(128), nodes=True), 128),
        (product(np.int8(3)), 131),
        (product(None), 0),
        (product(None, output_dtype=TensorProto.INT8), 128),
    ],
    ids=["plain", "axis from the end", "constants as nodes", "int8", "unsigned", "output_dtype"],
)
def test_the_form_changes_nothing(model: bytes, zero: int) -> None:
    network = read_foreign(model, "f.onnx")
    assert network.grids == {"x": Grid(np.float32(0.05).item(), zero)}
    (weight,) = network.weights.values()
    assert np.array_equal(weight.integers, WEIGHT)
    made = requantize(network, ORT)
    assert made.notes == ()
    assert np.array_equal(run_onnx(model, X, False)[0], run_onnx(made.content, X, False)[0])


def test_a_scale_per_block_is_refused() -> None:
    model = onnx.load_from_string(product(np.uint8(128)))
    weight = next(n for n in model.graph.node if n.name == "weight")
    for attribute, value in (("axis", 0), ("block_size", 4)):
        kept = [a for a in weight.attribute if a.name != attribute]
        del weight.attribute[:]
        weight.attribute.extend([*kept, helper.make_attribute(attribute, value)])
    for name, value in (("t", np.stack([STEPS, STEPS])), ("v", np.zeros((2, 4), np.int8))):
        stored = next(t for t in model.graph.initializer if t.name == name)
        stored.CopyFrom(numpy_helper.from_array(value, name))
    onnx.checker.check_model(model)
    with pytest.raises(BadInputError, match="a scale per block of 4 weights"):
        read_foreign(model.SerializeToString(), "f.onnx")


@pytest.mark.parametrize("stored", [True, False], ids=["as integers", "as a float"])
def test_a_single_number_can_be_quantized(stored: bool) -> None:
    pair = ["number_scale", "number_zero"]
    first = [] if stored else [helper.make_node("QuantizeLinear", ["six", *pair], ["number"])]
    made = [
        *first,
        helper.make_node("DequantizeLinear", ["number", *pair], ["n"]),
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Mul", ["d", "n"], ["y"]),
    ]
    numbers = {"number_scale": np.float32(6 / 255), "number_zero": np.uint8(0)}
    numbers |= {"s": np.float32(0.05), "z": np.uint8(128)}
    numbers |= {"number": np.uint8(255)} if stored else {"six": np.float32(6)}
    graph = helper.make_graph(
        made,
        "six times",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8])],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in numbers.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    network = read_foreign(model, "f.onnx")
    # TensorRT's file has no pair in front of a product: nothing is rounded.
    for target, expected in ((ORT, run_onnx(model, X, False)[0]), (TENSORRT, 6 * X[0])):
        (found,) = run_onnx(requantize(network, target).content, X, False)
        assert found == pytest.approx(expected, rel=1e-5)


def test_arrays_for_other_inputs_are_refused() -> None:
    model = product(np.uint8(128))
    with pytest.raises(BadInputError, match="has 1 inputs, 2 arrays were given"):
        agreement(model, model, X * 2)
