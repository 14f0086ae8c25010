"""Small ONNX files, good and bad, that the lint and NVIDIA's parser are both asked about."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

node = helper.make_node
SCALE, ZERO = np.float32(0.1), np.int8(0)
WEIGHT = np.linspace(-1, 1, 144, dtype=np.float32).reshape(4, 4, 3, 3)
INTEGERS = {
    "wq": np.ones((4, 4, 3, 3), np.int8),
    "ws": np.full(4, 0.1, np.float32),
    "wz": np.zeros(4, np.int8),
}
QUANTIZED = {"s": SCALE, "z": ZERO, **INTEGERS}
DEQUANTIZED_WEIGHT = node("DequantizeLinear", ["wq", "ws", "wz"], ["wd"], axis=0, name="dqw")
DEQUANTIZED_BIAS = node("DequantizeLinear", ["bq", "ws"], ["bias"], axis=0, name="dqb")


def model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray | TensorProto],
    shape: tuple[str | int, ...] = ("N", 4, 8, 8),
    output: tuple[str | int, ...] | None = ("N", 4, 8, 8),
    opset: int = 20,
) -> onnx.ModelProto:
    """Return a model from x to y."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        [
            value if isinstance(value, TensorProto) else numpy_helper.from_array(value, name)
            for name, value in constants.items()
        ],
    )
    domains = {n.domain for n in nodes if n.domain}
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def pair(source: str, target: str) -> list[onnx.NodeProto]:
    return [
        node("QuantizeLinear", [source, "s", "z"], [f"{target}_q"], name=f"quantize_{target}"),
        node("DequantizeLinear", [f"{target}_q", "s", "z"], [target], name=f"dequantize_{target}"),
    ]


def conv(source: str, target: str, *weights: str) -> onnx.NodeProto:
    return node("Conv", [source, *(weights or "w")], [target], name="conv", pads=[1, 1, 1, 1])


def relu(source: str, target: str) -> onnx.NodeProto:
    return node("Relu", [source], [target], name="relu")


def one_pair(**constants: np.ndarray | TensorProto) -> onnx.ModelProto:
    return model(pair("x", "y"), {"s": SCALE, "z": ZERO, **constants})


def int8_conv(*behind: onnx.NodeProto, **constants: np.ndarray) -> onnx.ModelProto:
    """Return a quantized convolution, with what comes behind it."""
    target = "c" if behind else "y"
    nodes = [*pair("x", "a"), DEQUANTIZED_WEIGHT, conv("a", target, "wd"), *behind]
    return model(nodes, {**QUANTIZED, **constants})


def float_conv(opset: int) -> onnx.ModelProto:
    return model([conv("x", "c"), relu("c", "y")], {"w": WEIGHT}, opset=opset)


def biased(made: onnx.NodeProto | None, **constants: np.ndarray) -> onnx.ModelProto:
    nodes = [*pair("x", "a"), DEQUANTIZED_WEIGHT, *([made] if made else [])]
    return model([*nodes, conv("a", "y", "wd", "bias")], {**QUANTIZED, **constants})


def float8() -> onnx.ModelProto:
    return one_pair(z=helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], [0]))


GOOD = {
    "a float convolution": float_conv(20),
    "opset 17": float_conv(17),
    "opset 21": float_conv(21),
    "opset 23": float_conv(23),
    "fixed sizes": model([conv("x", "y")], {"w": WEIGHT}, shape=(1, 4, 8, 8), output=(1, 4, 8, 8)),
    "a float16 convolution": model(
        [
            node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
            conv("h", "c"),
            node("Cast", ["c"], ["y"], to=TensorProto.FLOAT),
        ],
        {"w": WEIGHT.astype(np.float16)},
    ),
    "a pair": one_pair(),
    "a pair of float8": float8(),
    "an int8 convolution": int8_conv(),
    "an int8 convolution and a relu": int8_conv(relu("c", "y")),
    "a pair between convolution and relu": int8_conv(*pair("c", "d"), relu("d", "y")),
    "a float bias": biased(None, bias=np.ones(4, np.float32)),
    "a pair for each channel": model(
        [
            node("QuantizeLinear", ["x", "ws", "wz"], ["a"], axis=1, name="quantize"),
            node("DequantizeLinear", ["a", "ws", "wz"], ["y"], axis=1, name="dequantize"),
        ],
        INTEGERS,
    ),
    "a computed scale": model(
        [node("ReduceMax", ["x"], ["s"], keepdims=0), *pair("x", "y")], {"z": ZERO}
    ),
}
BAD = {
    "an int32 bias": biased(DEQUANTIZED_BIAS, bq=np.ones(4, np.int32)),
    "a zero point": one_pair(z=np.int8(3)),
    "a zero point of a weight": int8_conv(wz=np.full(4, 1, np.int8)),
    "uint8 around 128": one_pair(z=np.uint8(128)),
    "int16": model(pair("x", "y"), {"s": SCALE, "z": np.int16(0)}, opset=21),
    "a negative scale": one_pair(s=np.float32(-0.1)),
    "a scale of 0": one_pair(s=np.float32(0)),
    "QLinearConv": model(
        [
            node("QuantizeLinear", ["x", "s", "z"], ["a"], name="quantize"),
            node(
                "QLinearConv",
                ["a", "s", "z", "wq", "ws", "wz", "s", "z"],
                ["c"],
                name="conv",
                pads=[1, 1, 1, 1],
            ),
            node("DequantizeLinear", ["c", "s", "z"], ["y"], name="dequantize"),
        ],
        QUANTIZED,
    ),
    "DynamicQuantizeLinear": model(
        [
            node("DynamicQuantizeLinear", ["x"], ["a", "s", "z"], name="quantize"),
            node("DequantizeLinear", ["a", "s", "z"], ["y"], name="dequantize"),
        ],
        {},
    ),
    "ConvInteger": model(
        [
            node("QuantizeLinear", ["x", "s", "z"], ["a"], name="quantize"),
            node("ConvInteger", ["a", "wq"], ["i"], name="conv", pads=[1, 1, 1, 1]),
            node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
        ],
        QUANTIZED,
    ),
    "an operator of another domain": model(
        [node("Mine", ["x"], ["y"], name="mine", domain="some.vendor")], {}
    ),
}
# The parser takes them, and reads them as something else or may do so.
MISREAD = {
    "uint8": one_pair(z=np.uint8(0)),
    "no zero point": model(
        [
            node("QuantizeLinear", ["x", "s"], ["a"], name="quantize"),
            node("DequantizeLinear", ["a", "s"], ["y"], name="dequantize"),
        ],
        {"s": SCALE},
    ),
    "a computed zero point": model(
        [node("Cast", ["f"], ["z"], to=TensorProto.INT8), *pair("x", "y")],
        {"s": SCALE, "f": np.float32(0)},
    ),
}
# Beyond the lint: only the parser knows which operators there are.
UNKNOWN = {
    "Det": model([node("Det", ["x"], ["y"], name="det")], {}, shape=("N", 4, 4), output=("N",)),
    "a cast to strings": model(
        [
            node("Cast", ["x"], ["t"], to=TensorProto.STRING, name="cast"),
            node("Cast", ["t"], ["y"], to=TensorProto.FLOAT),
        ],
        {},
    ),
}
