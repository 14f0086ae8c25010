"""Networks of which one layer is kept in float, on the real runtimes."""

from dataclasses import replace

import numpy as np
import pytest
from file_readers import TFLiteFile, onnx_operators, optimized_operators, run_onnx
from small_networks import Quantized, network

from edgedl.compress.encodings.simulate import Simulation
from edgedl.compress.graph.memory_layout import in_fast_layout
from edgedl.compress.targets.named import ORT, TFLITE


def with_float(name: str, *kept: str) -> Quantized:
    """Return one of the small networks with some operators kept in float."""
    whole = network(name)
    net = Quantized(whole.module, whole.inputs, bits=whole.encodings.weight_bits)
    net.encodings = replace(net.encodings, float_nodes=frozenset(kept))
    return net


LAYERS = [
    (name, node.name)
    for name in ("operators", "joined")
    for node in Simulation(network(name).graph, network(name).encodings).weighted
]


@pytest.mark.parametrize(("name", "kept"), LAYERS)
def test_the_simulation_is_the_emitted_graph(name: str, kept: str) -> None:
    net = with_float(name, kept)
    # As ``run_graph`` lays them: the last bits of float layers depend on it.
    inputs = in_fast_layout(net.graph, net.inputs)
    (found,) = Simulation(net.graph, net.encodings)(*inputs)
    np.testing.assert_array_equal(found.numpy(), net.outputs(net.emitted(ORT))[0])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kept"), LAYERS)
def test_onnx_runtime_keeps_that_layer_alone_in_float(name: str, kept: str) -> None:
    net = with_float(name, kept)
    found, before = optimized_operators(net.onnx), optimized_operators(network(name).onnx)
    integer = ("QLinearConv", "QGemm")
    assert sum(found[o] for o in integer) == sum(before[o] for o in integer) - 1
    assert found["Conv"] + found["FusedConv"] + found["Gemm"] + found["FusedGemm"] == 1
    (expected,) = net.outputs(net.emitted(ORT))
    (outputs,) = run_onnx(net.onnx, net.arrays)
    assert np.abs(outputs - expected).max() <= 1.001 * max(net.steps)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kept"), LAYERS)
def test_tflite_keeps_that_layer_alone_in_float(name: str, kept: str) -> None:
    net = with_float(name, kept)
    file = TFLiteFile(net.tflite, xnnpack=False)
    assert {"QUANTIZE", "DEQUANTIZE"} <= set(file.operators)
    integer_weights = [t for t in file.tensors if len(t["quantization_parameters"]["scales"]) > 1]
    whole = TFLiteFile(network(name).tflite, xnnpack=False)
    before = [t for t in whole.tensors if len(t["quantization_parameters"]["scales"]) > 1]
    # The float layer's weight, and its bias where it is not another's, too.
    assert len(before) - 2 <= len(integer_weights) < len(before)
    assert all(d["dtype"] is np.float32 for d in [*file.inputs, *file.outputs])
    (expected,) = net.outputs(net.emitted(TFLITE))
    (outputs,) = TFLiteFile(net.tflite).run(net.arrays)
    assert np.abs(outputs - expected).max() <= 1.001 * max(net.steps)


@pytest.mark.slow
def test_tensorrt_has_no_pairs_around_it() -> None:
    net, kept = with_float("operators", "conv2d_1"), "conv2d_1"
    before = onnx_operators(network("operators").tensorrt)
    found = onnx_operators(net.tensorrt)
    assert found["QuantizeLinear"] < before["QuantizeLinear"], kept
