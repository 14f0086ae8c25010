"""The emulator against int8 arithmetic written out in loops."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_networks import NETWORKS, network

from edgedl.compress.errors import ExportError
from edgedl.compress.export.exporter import exporter_of
from edgedl.compress.export.tensorrt.integer_emulator import IntegerEmulator
from edgedl.compress.graph.operators.table import is_weighted
from edgedl.compress.parity.inner_tensors import GraphIntegers
from edgedl.compress.targets.named import TENSORRT

STEP = np.float32(0.05)


def quantized(
    node: onnx.NodeProto,
    shape: list,
    weight: np.ndarray,
    scales: np.ndarray,
    axis: int,
    **more: object,
) -> bytes:
    """Return x -> pair -> node(., dequantized weight, bias) -> y."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["dw"], axis=axis),
        node,
    ]
    constants = {"s": STEP, "z": np.int8(0), "w": weight, "ws": scales,
                 "wz": np.zeros(len(scales), np.int8), **more}  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def to_integers(x: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(x / STEP), -128, 127).astype(np.int64)


def test_a_convolution_is_that_of_the_loops() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 2, (2, 4, 5, 6)).astype(np.float32)
    w = rng.integers(-127, 128, (6, 2, 3, 2)).astype(np.int8)
    scales, bias = rng.random(6, np.float32) / 50, rng.normal(size=6).astype(np.float32)
    node = helper.make_node("Conv", ["d", "dw", "b"], ["y"], group=2, strides=[2, 1],
                            pads=[1, 0, 1, 1])  # fmt: skip
    emulator = IntegerEmulator(quantized(node, ["N", 4, 5, 6], w, scales, 0, b=bias))
    (found,) = emulator.run([x])
    assert emulator.integer_layers == 1
    q = np.pad(to_integers(x), ((0, 0), (0, 0), (1, 1), (0, 1)))
    assert found.shape == (2, 6, 3, 6)
    for n, o, i, j in np.ndindex(found.shape):
        total = 0
        for c, k, m in np.ndindex(2, 3, 2):
            total += int(q[n, 2 * (o // 3) + c, 2 * i + k, j + m]) * int(w[o, c, k, m])
        assert found[n, o, i, j] == np.float32(total) * (STEP * scales[o]) + bias[o]


@pytest.mark.parametrize("kind", ["Gemm", "Gemm transposed", "MatMul"])
@pytest.mark.parametrize("length", [7, 1500, 40_000])
def test_a_linear_layer_is_that_of_the_loops_however_long_its_sums(kind: str, length: int) -> None:
    """Sums of 1,500 and 40,000 large products are not exact in float32 as they stand."""
    rng = np.random.default_rng(length)
    x = rng.uniform(4, 6.3, (2, length)).astype(np.float32)
    w = rng.integers(90, 128, (3, length)).astype(np.int8)
    scales, bias = rng.random(3, np.float32), rng.normal(size=3).astype(np.float32)
    if kind == "MatMul":
        node = helper.make_node("MatMul", ["d", "dw"], ["y"])
    else:
        transposed = int(kind != "Gemm")
        node = helper.make_node("Gemm", ["d", "dw", "b"], ["y"], transB=transposed)
    stored, axis = (w, 0) if kind == "Gemm transposed" else (np.ascontiguousarray(w.T), 1)
    model = quantized(node, ["N", length], stored, scales, axis, b=bias)
    (found,) = IntegerEmulator(model).run([x])
    q = to_integers(x)
    for n, o in np.ndindex(2, 3):
        total = sum(int(a) * int(b) for a, b in zip(q[n], w[o], strict=True))
        expected = np.float32(total) * (STEP * scales[o])
        assert found[n, o] == (expected if kind == "MatMul" else expected + bias[o])


def test_sums_beyond_int32_are_refused() -> None:
    length = 140_000
    w = np.full((1, length), 127, np.int8)
    node = helper.make_node("Gemm", ["d", "dw"], ["y"], transB=1)
    model = quantized(node, ["N", length], w, np.ones(1, np.float32), 0)
    with pytest.raises(ExportError, match="int32"):
        IntegerEmulator(model).run([np.full((1, length), 6.35, np.float32)])


@pytest.mark.parametrize("zero_point", [np.int8(3), np.uint8(0)])
def test_what_is_not_symmetric_int8_stays_float(zero_point: np.generic) -> None:
    node = helper.make_node("Gemm", ["d", "dw"], ["y"], transB=1)
    w = np.ones((2, 4), np.int8)
    model = quantized(node, ["N", 4], w, np.ones(2, np.float32), 0, z=zero_point)
    emulator = IntegerEmulator(model)
    assert emulator.integer_layers == 0
    (found,) = emulator.run([np.full((1, 4), 0.5, np.float32)])
    np.testing.assert_allclose(found, 2.0, atol=0.2)


def test_a_scaled_product_or_a_computed_bias_stays_float() -> None:
    w = np.ones((2, 4), np.int8)
    scaled = helper.make_node("Gemm", ["d", "dw", "b"], ["y"], transB=1, alpha=0.5)
    computed = helper.make_node("Gemm", ["d", "dw", "q"], ["y"], transB=1)
    for node in (scaled, computed):
        model = quantized(node, ["N", 4], w, np.ones(2, np.float32), 0, b=np.zeros(2, np.float32))
        assert IntegerEmulator(model).integer_layers == 0
    model = quantized(scaled, ["N", 4], w, np.ones(2, np.float32), 0, b=np.ones(2, np.float32))
    (found,) = IntegerEmulator(model).run([np.full((1, 4), 0.5, np.float32)])
    np.testing.assert_allclose(found, 2.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_compute_the_integers_of_their_graph(name: str) -> None:
    net = network(name)
    tensors = exporter_of(TENSORRT).inner_tensors(net.tensorrt)
    emulator = IntegerEmulator(net.tensorrt, [t.name for t in tensors])
    outputs = emulator.run(net.arrays)
    graph = net.emitted(TENSORRT)
    assert emulator.integer_layers == sum(is_weighted(n) for n in net.graph.graph.nodes)
    expected = GraphIntegers(graph).read(net.arrays)
    for tensor, wanted in zip(tensors, expected.values(), strict=True):
        found = tensor.centre(outputs[len(net.steps) + tensors.index(tensor)])
        # Float32 rounds sums in another order: single integers may differ, by one step.
        assert np.abs(found - wanted).max() <= 1
        assert (found != wanted).mean() < 0.01
    own = outputs[: len(net.steps)]
    for found, wanted, step in zip(own, net.outputs(graph), net.steps, strict=True):
        assert np.abs(found - wanted).max() <= 3 * step
