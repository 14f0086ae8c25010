"""Files that onnxruntime's own quantizer made, carried to ONNX Runtime and TensorRT."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from file_readers import onnx_grids, onnx_operators, optimized_operators, run_onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from edgedl.compress.convert.compare import agreement, noise_for
from edgedl.compress.convert.foreign import Grid, read_foreign
from edgedl.compress.convert.requantize import requantize
from edgedl.compress.export.tensorrt.lint import lint
from edgedl.compress.targets.named import ORT, TENSORRT
from edgedl.runtime.errors import BadInputError

U8, S8 = QuantType.QUInt8, QuantType.QInt8
KINDS = {
    "u8s8": (U8, S8, True, {}),
    "u8s8 per tensor": (U8, S8, False, {}),
    "s8s8": (S8, S8, True, {}),
    "symmetric": (S8, S8, True, {"ActivationSymmetric": True}),
    "u8u8": (U8, U8, False, {}),
}


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@cache
def float_model() -> bytes:
    """A residual network by hand: conv+ReLU, conv, add, ReLU, max pool, linear."""
    r = rng()
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], "stem", pads=[1] * 4),
        helper.make_node("Relu", ["c0"], ["r0"], "relu0"),
        helper.make_node("Conv", ["r0", "w1", "b1"], ["c1"], "conv", pads=[1] * 4),
        helper.make_node("Add", ["c1", "r0"], ["a"], "add"),
        helper.make_node("Relu", ["a"], ["r1"], "relu1"),
        helper.make_node("MaxPool", ["r1"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["y"], "fc", transB=1),
    ]
    constants = {
        "w0": r.normal(0, 0.4, (6, 3, 3, 3)),
        "b0": r.normal(0, 0.2, 6),
        "w1": r.normal(0, 0.2, (6, 6, 3, 3)) * np.logspace(-1, 0, 6).reshape(-1, 1, 1, 1),
        "b1": r.normal(0, 0.2, 6),
        "w2": r.normal(0, 0.2, (4, 54)),
        "b2": r.normal(0, 0.2, 4),
    }
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def pictures(count: int) -> np.ndarray:
    return rng().normal(size=(count, 3, 6, 6)).astype(np.float32)


class Calibration(CalibrationDataReader):
    def __init__(self) -> None:
        self._batches: Iterator[dict[str, np.ndarray]] = iter([{"x": pictures(64)}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    folder = tmp_path_factory.mktemp("foreign")

    @cache
    def make(kind: str, form: QuantFormat = QuantFormat.QDQ) -> bytes:
        activations, weights, per_channel, options = KINDS[kind]
        (folder / "float.onnx").write_bytes(float_model())
        quantize_static(
            folder / "float.onnx",
            folder / "int8.onnx",
            Calibration(),
            quant_format=form,
            activation_type=activations,
            weight_type=weights,
            per_channel=per_channel,
            extra_options=options,
        )
        return (folder / "int8.onnx").read_bytes()

    return make


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "u8u8"])
def test_for_onnx_runtime_every_output_is_the_same(
    foreign: Callable[..., bytes], kind: str
) -> None:
    original = foreign(kind)
    made = requantize(read_foreign(original, "f.onnx"), ORT)
    x = (pictures(20),)
    assert np.array_equal(run_onnx(original, x, False)[0], run_onnx(made.content, x, False)[0])
    assert made.notes == ()
    grids, weights = onnx_grids(made.content)
    source, _ = onnx_grids(original)
    assert {scale for scale, _ in grids} <= {scale for scale, _ in source}
    assert len(weights) == 3
    if kind != "symmetric":
        assert optimized_operators(made.content)["QLinearConv"] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_for_tensorrt_everything_is_symmetric_and_close(
    foreign: Callable[..., bytes], kind: str
) -> None:
    original = foreign(kind)
    made = requantize(read_foreign(original, "f.onnx"), TENSORRT)
    assert lint(onnx.load_from_string(made.content)) == []
    # x, r0 (read by conv and add), f; not the sums, nor the outputs of convolutions.
    assert onnx_operators(made.content)["QuantizeLinear"] == 3
    assert onnx_operators(made.content)["Relu"] == 2
    (reference,) = run_onnx(float_model(), (pictures(50),))
    (found,) = run_onnx(made.content, (pictures(50),), False)
    error = np.abs(found - reference).max() / np.abs(reference).max()
    assert error < 0.06
    assert agreement(original, made.content, (pictures(50),)).sqnr_db > 28


@pytest.mark.parametrize("kind", ["u8s8", "s8s8", "symmetric"])
@pytest.mark.parametrize("target", [ORT, TENSORRT])
def test_symmetric_int8_weights_stay_bit_for_bit(
    foreign: Callable[..., bytes], kind: str, target: str
) -> None:
    original = foreign(kind)
    made = requantize(read_foreign(original, "f.onnx"), target)

    def weights(model: bytes) -> list[np.ndarray]:
        tensors = onnx.load_from_string(model).graph.initializer
        arrays = [numpy_helper.to_array(t) for t in tensors]
        return sorted((a for a in arrays if a.dtype == np.int8 and a.ndim > 1), key=np.size)

    pairs = list(zip(weights(original), weights(made.content), strict=True))
    assert len(pairs) == 3
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_other_weights_are_rounded_anew_and_that_is_said(foreign: Callable[..., bytes]) -> None:
    original = foreign("u8u8")
    made = requantize(read_foreign(original, "f.onnx"), ORT)
    assert made.notes == ("3 weights were not symmetric int8: they are rounded anew",)
    assert agreement(original, made.content, (pictures(50),)).sqnr_db > 30


@pytest.mark.parametrize("kind", ["in a row", "side by side"])
def test_a_value_on_two_grids_keeps_the_first_and_that_is_said(kind: str) -> None:
    first = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
    ]
    source = "d" if kind == "in a row" else "x"
    second = [
        helper.make_node("QuantizeLinear", [source, "t", "z"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "t", "z"], ["e"]),
        helper.make_node("Add", ["e", "d"], ["y"]),
    ]
    constants = {"s": np.float32(0.1), "t": np.float32(0.2), "z": np.uint8(7)}
    graph = helper.make_graph(
        first + second,
        "twice",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    network = read_foreign(model, "f.onnx")
    assert network.grids == {"x": Grid(np.float32(0.1).item(), 7)}
    name = "d" if kind == "in a row" else "x"
    assert network.notes == (f"quantized more than once, only the first grid is kept: {name}",)


def test_grids_of_a_symmetric_file_stay_for_tensorrt() -> None:
    affine = Grid(0.1, 128).affine(TENSORRT)
    assert (affine.scale, affine.zero_point) == (0.1, 0)
    widened = Grid(np.float32(0.1).item(), 0).affine(TENSORRT)
    assert widened.scale == pytest.approx(0.1 * 255 / 127)


def test_noise_fills_the_range_of_the_input(foreign: Callable[..., bytes]) -> None:
    content = foreign("u8s8")
    network = read_foreign(content, "f.onnx")
    (noise,) = noise_for(content, network, 32)
    grid = network.grids["x"]
    assert noise.shape == (32, 3, 6, 6)
    assert noise.min() >= -grid.zero_point * grid.scale
    assert noise.max() == pytest.approx((255 - grid.zero_point) * grid.scale, rel=0.02)


def test_reading_leaves_the_network_for_the_next_target(foreign: Callable[..., bytes]) -> None:
    network = read_foreign(foreign("u8s8"), "f.onnx")
    first = requantize(network, ORT).content
    requantize(network, TENSORRT)
    assert requantize(network, ORT).content == first


def qoperator(foreign: Callable[..., bytes], folder: Path) -> bytes:
    return foreign("u8s8", QuantFormat.QOperator)


def dynamic(foreign: Callable[..., bytes], folder: Path) -> bytes:
    (folder / "float.onnx").write_bytes(float_model())
    quantize_dynamic(folder / "float.onnx", folder / "dynamic.onnx")
    return (folder / "dynamic.onnx").read_bytes()


def wide(foreign: Callable[..., bytes], folder: Path) -> bytes:
    model = onnx.load_from_string(foreign("u8s8"))
    zero = next(t for t in model.graph.initializer if t.name == "x_zero_point")
    zero.CopyFrom(numpy_helper.from_array(np.uint16(3), zero.name))
    model.opset_import[0].version = 21
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (qoperator, "QOperator format"),
        (dynamic, "quantized while it runs"),
        (lambda *_: float_model(), "is not quantized"),
        (lambda *_: b"no model", "not a whole ONNX model"),
        (wide, "uint16"),
    ],
)
def test_what_cannot_be_carried_over_is_said(
    foreign: Callable[..., bytes], tmp_path: Path, make: Any, words: str
) -> None:
    with pytest.raises(BadInputError, match=words) as caught:
        read_foreign(make(foreign, tmp_path), "f.onnx")
    assert len(str(caught.value).splitlines()) == 1
