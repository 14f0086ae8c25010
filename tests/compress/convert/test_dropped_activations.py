"""Activations that onnxruntime's quantizer drops stand again where another file needs them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from file_readers import onnx_operators, run_onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from edgedl.compress.convert.foreign import read_foreign
from edgedl.compress.convert.requantize import requantize
from edgedl.compress.targets.named import ORT, TENSORRT

CHANNELS = 8
OPSETS = [helper.make_opsetid("", 17)]


def pictures(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(64, CHANNELS, 6, 6)).astype(np.float32)


def constants() -> dict[str, np.ndarray]:
    r = np.random.default_rng(3)
    square = (CHANNELS, CHANNELS, 1, 1)
    arrays = {
        **{f"w{i}": r.normal(0, 1.0, square) for i in range(3)},
        "wide": r.normal(0, 1.0, (CHANNELS, 2 * CHANNELS, 1, 1)),
        "up": r.normal(0, 0.5, (CHANNELS, CHANNELS, 2, 2)),
        "k": r.normal(0, 1.0, (1, CHANNELS, 1, 1)),
        **{name: r.uniform(0.5, 1.5, CHANNELS) for name in ("scale", "variance")},
        **{name: r.normal(0, 0.5, CHANNELS) for name in ("shift", "mean")},
        "fc": r.normal(0, 0.3, (CHANNELS, 4)),
        **{"zero": 0.0, "one": 1.0, "minus_one": -1.0, "three": 3.0, "six": 6.0},
    }
    return {name: np.asarray(a, np.float32) for name, a in arrays.items()}


def conv(reads: str, gives: str, weight: str) -> NodeProto:
    return helper.make_node("Conv", [reads, weight], [gives], gives)


def node(kind: str, reads: str, gives: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, reads.split(), [gives], gives, **attributes)


def float_model(body: list[NodeProto]) -> bytes:
    """A body from x to h, then the mean over positions and a linear layer."""
    head = [
        node("GlobalAveragePool", "h", "m"),
        node("Flatten", "m", "f"),
        node("MatMul", "f fc", "y"),
    ]
    nodes = [*body, *head]
    used = {name for n in nodes for name in n.input}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", CHANNELS, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(a, n) for n, a in constants().items() if n in used],
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=8).SerializeToString()


class Calibration(CalibrationDataReader):
    def __init__(self) -> None:
        self._batches: Iterator[dict[str, np.ndarray]] = iter([{"x": pictures(1)}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def quantize(body: list[NodeProto], folder: Path, **options: Any) -> bytes:
    (folder / "float.onnx").write_bytes(float_model(body))
    quantize_static(
        folder / "float.onnx",
        folder / "int8.onnx",
        Calibration(),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        **options,
    )
    return (folder / "int8.onnx").read_bytes()


def sqnr(expected: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10((expected**2).sum() / ((expected - found) ** 2).sum()))


BODIES = {
    "ReLU behind a transposed convolution": [
        node("ConvTranspose", "x up", "c", strides=[2, 2]),
        node("Relu", "c", "r"),
        conv("r", "h", "w0"),
    ],
    "ReLU behind a product": [
        node("Mul", "x k", "c"),
        node("Relu", "c", "r"),
        conv("r", "h", "w0"),
    ],
    "ReLU behind a concatenation": [
        conv("x", "c", "w0"),
        node("Concat", "x c", "d", axis=1),
        node("Relu", "d", "r"),
        conv("r", "h", "wide"),
    ],
    "ReLU behind a batch norm": [
        conv("x", "c", "w0"),
        conv("c", "d", "w1"),
        node("Add", "c d", "e"),
        node("BatchNormalization", "e scale shift mean variance", "g"),
        node("Relu", "g", "r"),
        conv("r", "h", "w2"),
    ],
    "ReLU6 as a gate": [
        conv("x", "c", "w0"),
        conv("c", "d", "w1"),
        node("Clip", "d zero six", "g"),
        node("Mul", "c g", "e"),
        conv("e", "h", "w2"),
    ],
    "ReLU6 on both sides of a residual add": [
        conv("x", "c", "w0"),
        node("Clip", "c zero six", "r"),
        conv("r", "d", "w1"),
        node("Clip", "d zero six", "s"),
        node("Add", "r s", "h"),
    ],
    "ReLU6 of a sum without negative values": [
        conv("x", "c", "w0"),
        node("Relu", "c", "r"),
        node("Add", "r r", "d"),
        node("Clip", "d zero six", "h"),
    ],
    "Clip to both signs": [
        conv("x", "c", "w0"),
        node("Clip", "c minus_one one", "r"),
        node("Mul", "x r", "h"),
    ],
    "Clip to unequal ends, read through a pair": [
        conv("x", "c", "w0"),
        node("Clip", "c minus_one three", "r"),
        conv("r", "h", "w1"),
    ],
    "hard swish, written out": [
        conv("x", "c", "w0"),
        node("Add", "c three", "d"),
        node("Clip", "d zero six", "g"),
        node("Mul", "c g", "e"),
        node("Div", "e six", "i"),
        conv("i", "h", "w1"),
    ],
}


@pytest.mark.parametrize("name", BODIES)
def test_what_the_quantizer_dropped_is_computed_all_the_same(name: str, tmp_path: Path) -> None:
    original = quantize(BODIES[name], tmp_path)
    dropped = onnx_operators(original)
    assert dropped["Relu"] + dropped["Clip"] == 0
    x = (pictures(2),)
    (expected,) = run_onnx(original, x, False)
    network = read_foreign(original, "f.onnx")
    (same,) = run_onnx(requantize(network, ORT).content, x, False)
    # A constant is int8 now, no other grid has changed.
    assert np.array_equal(same, expected) or sqnr(expected, same) > 40
    made = requantize(network, TENSORRT).content
    assert sqnr(expected, run_onnx(made, x, False)[0]) > 30


@pytest.mark.parametrize(
    ("body", "relus", "clips"),
    [
        # The pair in front of the second layer clips at the upper end.
        ([conv("x", "c", "w0"), node("Clip", "c zero six", "r"), conv("r", "h", "w1")], 1, 0),
        # A pair behind a maximum clips as one in front of it does.
        (
            [
                conv("x", "c", "w0"),
                node("Relu", "c", "r"),
                node("MaxPool", "r", "p", kernel_shape=[2, 2]),
                conv("p", "h", "w1"),
            ],
            1,
            0,
        ),
        # A maximum and a sum of what is not negative are not negative.
        (
            [
                conv("x", "c", "w0"),
                node("Relu", "c", "r"),
                node("MaxPool", "r", "p", kernel_shape=[1, 1]),
                node("Add", "p p", "s"),
                conv("s", "h", "w1"),
            ],
            0,
            1,
        ),
        # Nothing clips at the ends that samples gave.
        ([conv("x", "c", "w0"), node("Mul", "c x", "d"), conv("d", "h", "w1")], 0, 0),
        (
            [
                conv("x", "c", "w0"),
                node("Sigmoid", "c", "s"),
                node("Mul", "c s", "d"),
                conv("d", "h", "w1"),
            ],
            0,
            0,
        ),
    ],
    ids=["upper end", "maximum", "sums and maxima", "both signs", "sigmoid"],
)
def test_no_operator_is_put_where_it_changes_nothing(
    body: list[NodeProto], relus: int, clips: int, tmp_path: Path
) -> None:
    network = read_foreign(quantize(body, tmp_path), "f.onnx")
    found = onnx_operators(requantize(network, TENSORRT).content)
    assert (found["Relu"], found["Clip"]) == (relus, clips)
    found = onnx_operators(requantize(network, ORT).content)
    assert (found["Relu"], found["Clip"]) == (0, 0)


def test_a_float_layer_of_onnx_runtime_reads_what_the_quantizer_clipped(tmp_path: Path) -> None:
    body = [conv("x", "c", "w0"), node("Clip", "c zero six", "r"), conv("r", "h", "w1")]
    original = quantize(body, tmp_path, nodes_to_exclude=["h"])
    made = requantize(read_foreign(original, "f.onnx"), ORT)
    assert made.notes == ("1 layers have no scale in the file for what they read: they stay float",)
    x = (pictures(2),)
    (expected,), (found,) = run_onnx(original, x, False), run_onnx(made.content, x, False)
    assert sqnr(expected, found) > 30


def test_a_value_that_is_read_without_its_pair_too_stays_as_it_is() -> None:
    nodes = [
        node("Neg", "x", "n"),
        node("QuantizeLinear", "n s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("Concat", "n d", "y", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "both",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8])],
        [
            numpy_helper.from_array(np.asarray(np.float32(0.1)), "s"),
            numpy_helper.from_array(np.asarray(np.uint8(0)), "z"),
        ],
    )
    model = helper.make_model(graph, opset_imports=OPSETS, ir_version=8).SerializeToString()
    made = requantize(read_foreign(model, "f.onnx"), TENSORRT).content
    assert onnx_operators(made)["Relu"] == 0
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    (found,) = run_onnx(made, (x,))
    assert np.array_equal(found[:, :4], -x)
