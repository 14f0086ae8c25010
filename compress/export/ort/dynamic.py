"""Dynamic int8 files, made from the float32 file by ONNX Runtime's own quantizer."""

import math
import tempfile
from pathlib import Path

import onnx

from edgedl.compress.errors import ExportError
from edgedl.compress.export.isolated import isolated
from edgedl.compress.export.onnx.file_passes import to_file
from edgedl.compress.targets.target import MAX_WEIGHT_BITS
from edgedl.runtime.backends.quiet import quiet

# Operators ONNX Runtime has dynamic int8 kernels for that are worth using on a CPU, and the one
# that looks up embeddings, whose table is then a quarter of the size.
_QUANTIZED = ["LSTM", "MatMul", "Gemm", "Gather"]
_WITHOUT_KERNEL = {"GRU", "RNN"}
# Of the weights: a file that holds less of them in 8 bits, beside layers that have no kernel, is a
# float file.
_LEAST_SHARE = 0.1


def with_dynamic_lstms(model: bytes, weight_bits: int) -> bytes:
    """Return a model of static int8 whose LSTMs have int8 weights and find their own ranges."""
    graph = onnx.load_from_string(model).graph
    if not any(node.op_type == "LSTM" for node in graph.node):
        return model

    def work() -> bytes:
        with tempfile.TemporaryDirectory() as folder, quiet():
            source, target = Path(folder) / "static.onnx", Path(folder) / "hybrid.onnx"
            source.write_bytes(model)
            _quantize(source, target, ["LSTM"], weight_bits)
            return target.read_bytes()

    return to_file(onnx.load_from_string(isolated(work)))


def dynamic_onnx(model: bytes, weight_bits: int) -> bytes:
    """Return a float32 ONNX model with int8 weights of 7 or 8 bits in linear and LSTM layers.

    Raises:
        ExportError: the layers that matter stay in float, because the runtime has no kernel.
    """

    def work() -> bytes:
        from onnxruntime.quantization.shape_inference import quant_pre_process

        with tempfile.TemporaryDirectory() as folder, quiet():
            source, folded, target = (
                Path(folder) / f"{name}.onnx" for name in ("float", "folded", "int8")
            )
            source.write_bytes(model)
            # The exporter builds recurrent weights from slices; unfolded they are passed over.
            quant_pre_process(str(source), str(folded), skip_symbolic_shape=True)
            _quantize(folded, target, _QUANTIZED, weight_bits)
            return target.read_bytes()

    quantized = onnx.load_from_string(isolated(work))
    share = _share_in_8_bits(quantized.graph)
    without = sorted({node.op_type for node in quantized.graph.node} & _WITHOUT_KERNEL)
    if without and share < _LEAST_SHARE:
        raise ExportError(f"ONNX Runtime has no int8 kernel for the operator {without[0]}")
    if not share:
        raise ExportError("the network has no linear or LSTM layer that could be quantized")
    return to_file(quantized)


def _share_in_8_bits(graph: onnx.GraphProto) -> float:
    """Return the share of stored numbers that are 8 bit integers."""
    sizes = [(t.data_type, math.prod(t.dims)) for t in graph.initializer if t.dims]
    integers = sum(size for kind, size in sizes if kind == onnx.TensorProto.INT8)
    return float(integers / max(1, sum(size for _, size in sizes)))


def _quantize(source: Path, target: Path, operators: list[str], weight_bits: int) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(source),
        str(target),
        op_types_to_quantize=operators,
        per_channel=True,
        weight_type=QuantType.QInt8,
        reduce_range=weight_bits < MAX_WEIGHT_BITS,
    )
