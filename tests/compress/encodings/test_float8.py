"""E4M3 graphs for TensorRT: grids, the file, who takes it, and stages that cannot follow."""

import numpy as np
import onnx
import pytest
import torch
from file_readers import run_onnx
from small_networks import Net, network, noise
from torch import fx, nn

from edgedl.compress.artifacts.build import ArtifactBuilder, Refusal
from edgedl.compress.encodings.calibrate import calibrate
from edgedl.compress.encodings.emit import emit
from edgedl.compress.encodings.encodings import Encodings, Range
from edgedl.compress.encodings.float8 import (
    E4M3,
    dequantize_float8,
    float8_scale,
    quantize_float8,
)
from edgedl.compress.export.onnx.write import to_onnx
from edgedl.compress.export.tensorrt.check import check_tensorrt
from edgedl.compress.export.tensorrt.lint import lint
from edgedl.compress.graph.trace import trace
from edgedl.compress.quantize.corrections.round_weights import RoundWeights
from edgedl.compress.quantize.quantize_fp8 import QuantizeFp8, first_layers
from edgedl.compress.recipe.recipe import keep_float
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.state import ModelState
from edgedl.compress.targets.named import ORT, TENSORRT, TFLITE
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.precision import FP8

NAME = "operators"


@pytest.fixture(scope="module")
def table() -> Encodings:
    net = network(NAME)
    return calibrate(net.graph, [net.inputs], "minmax", precision="fp8")


@pytest.fixture(scope="module")
def emitted(table: Encodings) -> fx.GraphModule:
    return emit(network(NAME).graph, table, TENSORRT)


@pytest.fixture(scope="module")
def file(emitted: fx.GraphModule) -> bytes:
    return to_onnx(emitted, network(NAME).inputs)


def all_e4m3() -> np.ndarray:
    """Return every value of the format, by its definition: sign, 4 bits exponent, 3 mantissa."""
    values = []
    for exponent in range(16):
        for mantissa in range(8):
            if exponent == 15 and mantissa == 7:
                continue  # The only code that is no number.
            scale = 2.0 ** (max(exponent, 1) - 7)
            values.append(((mantissa / 8) + (exponent > 0)) * scale)
    return np.array([-v for v in values] + values)


def test_values_are_rounded_to_the_nearest_e4m3_and_saturate() -> None:
    x = torch.linspace(-1200, 1200, 5001)
    scale, zero = torch.tensor(2.0), torch.zeros((), dtype=E4M3)
    found = dequantize_float8(quantize_float8(x, scale, zero), scale, zero, 0).numpy()
    grid = 2.0 * all_e4m3()
    nearest = np.abs(x.numpy()[:, None] - grid).min(axis=1)
    np.testing.assert_allclose(np.abs(found - x.numpy()), nearest, atol=1e-4)
    assert np.abs(found).max() == 896


@pytest.mark.parametrize("ends", [(-1.0, 3.0), (-5.0, 0.5), (0.0, 448.0)])
def test_the_largest_magnitude_becomes_448(ends: tuple[float, float]) -> None:
    assert float8_scale(Range(*ends)) == max(abs(e) for e in ends) / 448


def test_weights_and_their_inputs_are_e4m3_in_the_file(table: Encodings, file: bytes) -> None:
    graph = onnx.load_from_string(file).graph
    constants = {t.name: t for t in graph.initializer}
    quantized = {o for n in graph.node if n.op_type == "QuantizeLinear" for o in n.output}
    dequantized = {n.output[0]: n for n in graph.node if n.op_type == "DequantizeLinear"}
    layers = [n for n in graph.node if n.op_type in ("Conv", "Gemm")]
    assert len(layers) == 5
    amax = [w.numpy() / 448 for w in table.weights.values()]
    for layer in layers:
        reads, weight = dequantized[layer.input[0]], dequantized[layer.input[1]]
        assert reads.input[0] in quantized
        assert constants[weight.input[0]].data_type == onnx.TensorProto.FLOAT8E4M3FN
        for node in (reads, weight):
            zero = constants[node.input[2]]
            assert zero.data_type == onnx.TensorProto.FLOAT8E4M3FN
            assert not onnx.numpy_helper.to_array(zero).astype(np.float32).any()
        scale = onnx.numpy_helper.to_array(constants[weight.input[1]])
        assert any(len(a) == len(scale) and np.allclose(a, scale, rtol=1e-6) for a in amax)


def test_the_file_computes_what_the_emitted_graph_computes(
    emitted: fx.GraphModule, file: bytes
) -> None:
    net = network(NAME)
    (found,), (expected,) = run_onnx(file, net.arrays, optimize=False), net.outputs(emitted)
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_it_is_near_the_float_network(emitted: fx.GraphModule) -> None:
    net = network(NAME)
    (exact,), (found,) = net.outputs(net.graph), net.outputs(emitted)
    noise = np.square(exact - found).sum() / np.square(exact).sum()
    assert 1e-5 < noise < 10**-2.5


def test_tensorrt_takes_the_file(file: bytes) -> None:
    assert lint(onnx.load_from_string(file)) == []
    verdict = check_tensorrt(file)
    assert verdict.accepted, verdict.reason


def test_other_runtimes_refuse_in_one_line(float_state: ModelState) -> None:
    state = QuantizeFp8(samples=16).apply(float_state)
    assert state.history[-1].stage == "quantize_fp8"
    builder = ArtifactBuilder(state)
    plan = builder.plan((ORT, TFLITE, TENSORRT))
    assert [t for t, p in plan if p is FP8] == [ORT, TFLITE, TENSORRT]
    for target in (ORT, TFLITE):
        builder.plan = lambda _, t=target: [(t, FP8)]  # type: ignore[method-assign]
        assert list(builder.build((target,))) == [
            Refusal(
                f"{target.name}-fp8",
                {
                    "ort": "ONNX Runtime's CPU has no FP8 kernels",
                    "tflite": "TFLite has no FP8 kernels",
                }[target.name],
            )
        ]


def test_stages_that_work_on_integers_cannot_follow(float_state: ModelState) -> None:
    state = QuantizeFp8(samples=16).apply(float_state)
    with pytest.raises(BadInputError, match="works on int8 and int8_int16 networks, that of"):
        RoundWeights().apply(state)


def test_layers_can_be_kept_float(float_state: ModelState) -> None:
    recipe = keep_float(load_recipe("static_fp8"), ("fc",))
    assert recipe.stages == (QuantizeFp8(keep_float=("fc",)),)
    state = QuantizeFp8(samples=16, keep_float=("fc",)).apply(float_state)
    graph = emit(state.graph, state.quantized.encodings, TENSORRT)
    stored = [name for name, t in graph.named_buffers() if t.dtype == E4M3 and t.ndim > 1]
    # Four convolutions, the first of which reads the network's input.
    assert len(stored) == 3
    assert not any(name.startswith("linear") for name in stored)
    every = QuantizeFp8(samples=16, keep_first=False).apply(float_state).quantized.encodings
    assert every.float_nodes == frozenset()


def test_first_layers_read_an_input_as_it_is_or_moved() -> None:
    assert first_layers(network("two_heads").graph) == {"conv2d", "conv2d_1", "conv1d"}
    flat = Net(lambda net, x: net.b(net.a(x.flatten(1))), a=nn.Linear(6, 4), b=nn.Linear(4, 2))
    assert first_layers(trace(flat.eval(), (noise(2, 2, 3),))) == {"linear"}
