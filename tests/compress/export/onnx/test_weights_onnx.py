"""Integer weights in ONNX files: to the bit as in the table, computed in float32."""

import importlib.util
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from file_readers import onnx_operators, optimized_operators, run_onnx
from onnx import numpy_helper
from weight_networks import weights

from edgedl.compress.errors import ExportError
from edgedl.compress.export.onnx.weights import write_weights
from edgedl.compress.export.tensorrt.check import check_tensorrt
from edgedl.compress.targets.named import ORT, TENSORRT
from edgedl.compress.targets.target import Target

Stored = tuple[np.ndarray, np.ndarray]


def constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {t.name: t for t in model.graph.initializer}


def low_first(content: np.ndarray) -> np.ndarray:
    """Return the halves of bytes [..., n] as [..., 2 n], the low one first."""
    return np.stack([content & 15, content >> 4], -1).reshape(*content.shape[:-1], -1)


def kernel_weights(model: onnx.ModelProto) -> Iterator[Stored]:
    """Yield integers [N, K] and scales [N, blocks] of every MatMulNBits."""
    tensors = constants(model)
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            settings = {a.name: a.i for a in node.attribute}
            assert settings["accuracy_level"] == 1
            content, scales = (numpy_helper.to_array(tensors[n]) for n in node.input[1:3])
            bits, block = settings["bits"], settings["block_size"]
            assert content.shape == (settings["N"], -(-settings["K"] // block), block * bits // 8)
            unsigned = content if bits == 8 else low_first(content)
            signed = unsigned.reshape(settings["N"], -1).astype(int) - 2 ** (bits - 1)
            assert not signed[:, settings["K"] :].any()
            yield signed[:, : settings["K"]], scales


def dequantized_weights(model: onnx.ModelProto) -> Iterator[Stored]:
    """Yield integers and scales, output channels first, of every DequantizeLinear."""
    tensors = constants(model)
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            tensor, scales = tensors[node.input[0]], numpy_helper.to_array(tensors[node.input[1]])
            settings = {a.name: a.i for a in node.attribute}
            values = _integers(tensor)
            if "block_size" in settings:
                along = settings["axis"]
                assert values.shape[along] == scales.shape[along] * settings["block_size"]
                turned = along == 0
                yield (values.T, scales.T) if turned else (values, scales)
            else:
                yield (values.T if settings["axis"] else values), scales[:, None]


def _integers(tensor: onnx.TensorProto) -> np.ndarray:
    if tensor.data_type == onnx.TensorProto.INT8:
        return numpy_helper.to_array(tensor)
    assert tensor.data_type == onnx.TensorProto.INT4
    nibbles = low_first(np.frombuffer(tensor.raw_data, np.uint8)).astype(int)
    count = int(np.prod(tensor.dims))
    return ((nibbles + 8) % 16 - 8)[:count].reshape(tuple(tensor.dims))


def stored(model: bytes) -> list[Stored]:
    loaded = onnx.load_from_string(model)
    return [*kernel_weights(loaded), *dequantized_weights(loaded)]


FILES = [
    ("tokens_w4g32", ORT),
    ("tokens_w8c", ORT),
    ("tokens_w8g32", ORT),
    ("tokens_w4g32", TENSORRT),
    ("tokens_w8c", TENSORRT),
]


@pytest.mark.parametrize(("name", "target"), FILES)
def test_the_tables_integers_and_scales_are_in_the_file(name: str, target: Target) -> None:
    net = weights(name)
    found = stored(net.file(target))
    distinct = {w.dequantized().numpy().tobytes() for w in net.network.weights.values()}
    assert len(found) >= len(distinct)
    for path, weight in net.network.weights.items():
        integers, scales = weight.integers.numpy(), weight.scales.numpy()
        alike = [s for q, s in found if q.shape == integers.shape and np.array_equal(q, integers)]
        assert alike, path
        for there in alike:
            per_block = np.repeat(scales, there.shape[1] // scales.shape[1], axis=1)
            assert np.array_equal(there, per_block)


@pytest.mark.parametrize(("name", "target"), FILES)
def test_it_computes_what_the_dequantized_graph_computes(name: str, target: Target) -> None:
    net = weights(name)
    # ONNX Runtime's optimizer would round activations of the file for TensorRT.
    for optimize in {False, target is ORT}:
        found = run_onnx(net.file(target), (net.x,), optimize)
        for a, b in zip(found, net.expected(), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


def test_onnx_runtime_runs_its_4_bit_kernel_and_no_other_product() -> None:
    found = optimized_operators(weights("tokens_w4g32").file(ORT))
    # hidden, out, head, the constant and the tied weight
    assert found["MatMulNBits"] == 5
    assert not {"MatMul", "Gemm", "FusedMatMul"} & set(found)


def test_8_bits_per_channel_are_not_fused_into_arithmetic_on_integers() -> None:
    found = optimized_operators(weights("tokens_w8c").file(ORT))
    assert not {n for n in found if "MatMulNBits" in n or "Integer" in n or "QLinear" in n}
    # Seven weights; the embedding and the layer tied to it share theirs.
    assert onnx_operators(weights("tokens_w8c").file(ORT))["DequantizeLinear"] == 6


def test_8_bits_in_groups_are_read_by_the_kernel() -> None:
    found = optimized_operators(weights("tokens_w8g32").file(ORT))
    # All products but the one of 40 inputs, which has a step per channel.
    assert (found["MatMulNBits"], found["FusedMatMul"]) == (4, 1)


@pytest.mark.parametrize(("name", "target"), FILES)
def test_no_weight_is_stored_as_float_beside_its_integers(name: str, target: Target) -> None:
    tensors = onnx.load_from_string(weights(name).file(target)).graph.initializer
    floats = [
        tuple(t.dims)
        for t in tensors
        if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1 and ".scales" not in t.name
    ]
    assert floats == []


def test_tensorrt_files_are_dequantize_only() -> None:
    model = onnx.load_from_string(weights("tokens_w4g32").file(TENSORRT))
    assert {o.domain: o.version for o in model.opset_import} == {"": 21}
    found = onnx_operators(weights("tokens_w4g32").file(TENSORRT))
    assert found["DequantizeLinear"] == 7
    assert found["QuantizeLinear"] == 0


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed"
)
@pytest.mark.parametrize("name", ["tokens_w4g32", "tokens_w8c"])
def test_nvidias_parser_and_builder_take_them(name: str) -> None:
    verdict = check_tensorrt(weights(name).file(TENSORRT))
    assert verdict.accepted, verdict.reason


def test_a_weight_that_is_not_in_the_file_is_refused_by_name() -> None:
    net, other = weights("tokens_w8c"), weights("tokens_w4g32")
    with pytest.raises(ExportError, match=r"rewrote the weight '.*_dequantized'.*keep_float"):
        write_weights(net.file(ORT), other.network.weights, kernels=True)
