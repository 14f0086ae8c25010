"""Dynamically quantized files, made from the float32 file by each runtime's own quantizer."""

import tempfile
from pathlib import Path

import onnx

from edgedl.compress.errors import ExportError, first_line
from edgedl.compress.export.onnx.write import strip
from edgedl.compress.export.tflite.write import INSTALL
from edgedl.compress.targets.target import MAX_WEIGHT_BITS
from edgedl.runtime.backends.quiet import quiet
from edgedl.runtime.errors import BackendUnavailableError

# Operators ONNX Runtime has dynamic int8 kernels for that are worth using on a CPU, and the one
# that looks up embeddings, whose table is then a quarter of the size.
_QUANTIZED = ["LSTM", "MatMul", "Gemm", "Gather"]
_WITHOUT_KERNEL = {"GRU", "RNN"}


def dynamic_onnx(model: bytes, weight_bits: int) -> bytes:
    """Return a float32 ONNX model with int8 weights of 7 or 8 bits in linear and LSTM layers.

    Raises:
        ExportError: the layers that matter stay in float, because the runtime has no kernel.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    graph = onnx.load_from_string(model).graph
    refused = sorted({node.op_type for node in graph.node} & _WITHOUT_KERNEL)
    if refused:
        raise ExportError(f"ONNX Runtime has no int8 kernel for the operator {refused[0]}")
    with tempfile.TemporaryDirectory() as folder, quiet():
        source, folded, target = (Path(folder) / f"{n}.onnx" for n in ("float", "folded", "int8"))
        source.write_bytes(model)
        # The exporter builds recurrent weights from slices; unfolded they are passed over.
        quant_pre_process(str(source), str(folded), skip_symbolic_shape=True)
        quantize_dynamic(
            str(folded),
            str(target),
            op_types_to_quantize=_QUANTIZED,
            per_channel=True,
            weight_type=QuantType.QInt8,
            reduce_range=weight_bits < MAX_WEIGHT_BITS,
        )
        quantized = onnx.load(str(target))
    if not any(t.data_type == onnx.TensorProto.INT8 for t in quantized.graph.initializer):
        raise ExportError("the network has no linear or LSTM layer that could be quantized")
    return strip(quantized)


def dynamic_tflite(model: bytes) -> bytes:
    """Return a float32 TFLite model with int8 weights and int8 arithmetic on measured ranges.

    Raises:
        BackendUnavailableError: litert-quantizer is not installed.
        ExportError: the quantizer refuses the model.
    """
    try:
        with quiet():
            from litert_quantizer import quantizer as litert
            from litert_quantizer import recipe
    except ImportError as error:
        raise BackendUnavailableError(INSTALL) from error
    with tempfile.TemporaryDirectory() as folder, quiet():
        source, target = Path(folder) / "float32.tflite", Path(folder) / "int8.tflite"
        source.write_bytes(model)
        quantizer = litert.Quantizer(str(source))
        quantizer.load_quantization_recipe(recipe.dynamic_wi8_afp32())
        try:
            quantizer.quantize(enable_progress_report=False).export_model(str(target))
        except (ValueError, RuntimeError) as error:
            raise ExportError(f"litert-quantizer refuses the model: {first_line(error)}") from error
        return target.read_bytes()
