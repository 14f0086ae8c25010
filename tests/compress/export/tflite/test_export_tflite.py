"""TFLite files: integers throughout, the table's scales, ONNX Runtime's network."""

import json
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from file_readers import TFLiteFile, run_onnx
from small_networks import NETWORKS, Net, Quantized, network, noise
from torch import nn

from edgedl.compress.bundle_files import ENCODINGS
from edgedl.compress.encodings.affine import affine_for
from edgedl.compress.encodings.encodings import Range
from edgedl.compress.errors import ExportError
from edgedl.compress.export.tflite.interface import describe_tflite
from edgedl.compress.export.tflite.quantizer import to_float16_weights
from edgedl.compress.export.tflite.write import to_tflite
from edgedl.compress.graph.edit import input_nodes, output_nodes
from edgedl.compress.graph.trace import trace
from edgedl.compress.pipeline import CompressedModel
from edgedl.compress.targets.named import TFLITE
from edgedl.runtime.bundle.manifest import TensorSpec
from edgedl.runtime.errors import BackendUnavailableError

X = (noise(2, 3),)


def bundle_file(compressed: CompressedModel, name: str) -> bytes:
    return compressed.bundle.read(compressed.bundle.artifact(name).path)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_tflite_and_onnx_runtime_are_the_same_integer_network(name: str) -> None:
    net = network(name)
    found = TFLiteFile(net.tflite).run(net.arrays)
    for a, b, step in zip(found, run_onnx(net.onnx, net.arrays), net.steps, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= 1.001 * step
        assert np.abs(a - b).mean() <= 0.02 * step


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_kernels_without_xnnpack_stay_within_two_steps_of_the_emitted_graph(name: str) -> None:
    net = network(name)
    found = TFLiteFile(net.tflite, xnnpack=False).run(net.arrays)
    expected = net.outputs(net.emitted(TFLITE))
    for a, b, step in zip(found, expected, net.steps, strict=True):
        assert np.abs(a - b).max() <= 2.001 * step
        assert np.abs(a - b).mean() <= 0.5 * step


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_file_is_integer_from_end_to_end(name: str) -> None:
    file = TFLiteFile(network(name).tflite, xnnpack=False)
    assert not {"QUANTIZE", "DEQUANTIZE"} & set(file.operators)
    assert {t["dtype"].__name__ for t in file.tensors} == {"int8", "int32"}
    assert all(d["dtype"] is np.int8 for d in [*file.inputs, *file.outputs])


@pytest.mark.slow
@pytest.mark.parametrize("norm", [False, True])
def test_channels_first_and_last_may_read_one_tensor(norm: bool) -> None:
    """A residual block as in ConvNeXt: a convolution's result is added to a linear layer's."""

    def forward(m: Net, x: torch.Tensor) -> torch.Tensor:
        x = m.stem(x)
        y = x.permute(0, 2, 3, 1)
        return m.last(x + m.inside(m.norm(y) if norm else y).permute(0, 3, 1, 2))

    layers = {"stem": nn.Conv2d(3, 8, 3), "norm": nn.LayerNorm(8), "inside": nn.Linear(8, 8)}
    net = Quantized(Net(forward, last=nn.Conv2d(8, 2, 1), **layers), (noise(16, 3, 8, 8),))
    file = TFLiteFile(net.tflite, xnnpack=False)
    assert file.operators["FULLY_CONNECTED"] == 1
    assert norm or not {"QUANTIZE", "DEQUANTIZE"} & set(file.operators)
    (found,) = TFLiteFile(net.tflite).run(net.arrays)
    (expected,) = net.outputs(net.emitted(TFLITE))
    assert np.abs(found - expected).max() <= 1.001 * net.steps[0]
    assert np.abs(found - expected).mean() <= 0.02 * net.steps[0]


def test_the_bundles_file_is_integer_from_end_to_end(compressed: CompressedModel) -> None:
    file = TFLiteFile(bundle_file(compressed, "tflite-int8"), xnnpack=False)
    found = file.operators
    assert not {"QUANTIZE", "DEQUANTIZE"} & set(found)
    assert {t["dtype"].__name__ for t in file.tensors} == {"int8", "int32"}
    assert found["CONV_2D"] + found["DEPTHWISE_CONV_2D"] == 4
    assert found["ADD"] == found["CONCATENATION"] == found["FULLY_CONNECTED"] == 1
    # Activations are folded: they cost nothing.
    assert not {"RELU", "RELU6", "MINIMUM", "MAXIMUM"} & set(found)


def grids(file: TFLiteFile) -> set[tuple[float, int]]:
    """Return (scale, zero point) of every int8 tensor that has one step."""
    return {
        (float(q["scales"][0]), int(q["zero_points"][0]))
        for t in file.tensors
        if (q := t["quantization_parameters"])["scales"].size == 1 and t["dtype"] is np.int8
    }


def channel_scales(file: TFLiteFile) -> set[bytes]:
    return {
        t["quantization_parameters"]["scales"].tobytes()
        for t in file.tensors
        if t["dtype"] is np.int8 and t["quantization_parameters"]["scales"].size > 1
    }


def test_scales_are_those_of_the_bundles_table(compressed: CompressedModel) -> None:
    table = json.loads(compressed.bundle.read(ENCODINGS))
    file = TFLiteFile(bundle_file(compressed, "tflite-int8"), xnnpack=False)
    known = {
        name: affine_for(Range(r["lo"], r["hi"]), TFLITE)
        for name, r in table["activations"].items()
    }
    assert grids(file) <= {(a.scale, a.zero_point) for a in known.values()}
    for name in ("x", "relu6", "relu", "relu_1", "cat", "mean_dim", "linear"):
        assert (known[name].scale, known[name].zero_point) in grids(file)
    qmax = np.float32(2 ** (table["weight_bits"] - 1) - 1)
    expected = {(np.float32(w) / qmax).tobytes() for w in table["weights"].values()}
    assert channel_scales(file) == expected


@pytest.mark.slow
def test_bias_scales_are_input_scale_times_weight_scale() -> None:
    file = TFLiteFile(network("two_heads").tflite, xnnpack=False)
    biases = [
        t["quantization_parameters"]["scales"]
        for t in file.tensors
        if t["dtype"] is np.int32 and t["quantization_parameters"]["scales"].size > 1
    ]
    inputs = {scale for scale, _ in grids(file)}
    weights = [np.frombuffer(b, np.float32) for b in channel_scales(file)]
    assert len(biases) == 7
    for bias in biases:
        products = [w * np.float32(s) for w in weights if len(w) == len(bias) for s in inputs]
        assert any(np.allclose(bias, p, rtol=1e-6) for p in products)


@pytest.mark.slow
def test_inputs_and_outputs_are_described_in_the_networks_order() -> None:
    net = network("two_heads")
    inputs, outputs = describe_tflite(net.tflite)
    assert [s.shape for s in inputs] == [(1, 3, 6, 6), (1, 2, 16)]
    assert [s.shape for s in outputs] == [(1, 3), (1, 2, 4, 4)]
    ranges = net.encodings.activations
    nodes = [*input_nodes(net.graph), *output_nodes(net.graph)]
    for spec, node in zip([*inputs, *outputs], nodes, strict=True):
        grid = affine_for(ranges[node.name], TFLITE)
        assert spec == TensorSpec(spec.name, spec.shape, "int8", grid.scale, grid.zero_point)


def test_float_files_have_float_inputs_and_outputs(compressed: CompressedModel) -> None:
    for name in ("tflite-float32", "tflite-float16"):
        inputs, outputs = describe_tflite(bundle_file(compressed, name))
        for spec in (*inputs, *outputs):
            assert spec.dtype == "float32"
            assert spec.scale is None
            assert spec.zero_point is None


def test_float16_stores_half_the_bytes_of_the_weights(compressed: CompressedModel) -> None:
    full = bundle_file(compressed, "tflite-float32")
    half = to_float16_weights(full)
    tensors = TFLiteFile(half, xnnpack=False).tensors
    assert {t["dtype"] for t in tensors} >= {np.float16, np.float32}
    stored = {t["name"]: t for t in TFLiteFile(full, xnnpack=False).tensors}
    assert all(
        stored[t["name"]]["dtype"] is np.float32
        for t in tensors
        if t["dtype"] is np.float16 and t["name"] in stored
    )
    x = noise(4, 12, 12, 3).numpy()
    expected = TFLiteFile(full).run((x,))[0]
    np.testing.assert_allclose(TFLiteFile(half).run((x,))[0], expected, rtol=0.01, atol=0.01)


@pytest.mark.slow
def test_an_operator_without_a_tflite_form_is_one_readable_line() -> None:
    inputs = (noise(2, 3, 3),)
    graph = trace(Net(lambda _, x: torch.linalg.svd(x)[1]), inputs)
    with pytest.raises(ExportError, match="litert-torch cannot convert") as caught:
        to_tflite(graph, inputs, quantized=False)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("package", "convert"),
    [
        ("litert_torch", lambda: to_tflite(trace(Net(lambda _, x: x * 2.0), X), X, False)),
        ("litert_quantizer", lambda: to_float16_weights(b"")),
    ],
)
def test_a_missing_converter_says_what_to_install(
    package: str, convert: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BackendUnavailableError, match=r"pip install .*\[tflite-export\]'"):
        convert()
