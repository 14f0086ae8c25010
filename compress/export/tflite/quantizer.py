"""What LiteRT's own quantizer makes of a float32 file."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgedl.compress.errors import ExportError, first_line
from edgedl.compress.export.isolated import isolated
from edgedl.compress.export.tflite.write import missing
from edgedl.runtime.backends.quiet import quiet
from edgedl.runtime.errors import BackendUnavailableError


def to_dynamic_int8(model: bytes) -> bytes:
    """Return a float32 TFLite model with int8 weights and int8 arithmetic on measured ranges.

    Raises:
        BackendUnavailableError: litert-quantizer is not installed.
        ExportError: the quantizer refuses the model.
    """
    return _quantize(model, _ask_for_dynamic_int8)


def to_float16_weights(model: bytes) -> bytes:
    """Return a float TFLite model with its weights stored as float16.

    The runtime widens them when it loads the file: smaller, not faster.

    Raises:
        BackendUnavailableError: litert-quantizer is not installed.
        ExportError: the quantizer refuses the model.
    """
    return _quantize(model, _ask_for_float16)


def _ask_for_dynamic_int8(quantizer: Any) -> None:
    from litert_quantizer import recipe

    quantizer.load_quantization_recipe(recipe.dynamic_wi8_afp32())


def _ask_for_float16(quantizer: Any) -> None:
    from litert_quantizer import algorithm_manager, qtyping

    quantizer.update_quantization_recipe(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        algorithm_key=algorithm_manager.AlgorithmName.FLOAT_CASTING,
        op_config=qtyping.OpQuantizationConfig(
            weight_tensor_config=qtyping.TensorQuantizationConfig(
                num_bits=16, dtype=qtyping.TensorDataType.FLOAT
            ),
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        ),
    )


def _quantize(model: bytes, ask: Callable[[Any], None]) -> bytes:
    try:
        with quiet():
            from litert_quantizer import quantizer as litert
    except ImportError as error:
        raise BackendUnavailableError.of(error, missing()) from error

    def work() -> bytes:
        with tempfile.TemporaryDirectory() as folder, quiet():
            source, target = Path(folder) / "float32.tflite", Path(folder) / "quantized.tflite"
            source.write_bytes(model)
            quantizer = litert.Quantizer(str(source))
            ask(quantizer)
            quantizer.quantize(enable_progress_report=False).export_model(str(target))
            return target.read_bytes()

    try:
        return isolated(work)
    except ExportError:
        raise
    except Exception as error:
        # It raises many classes, and those of what it calls.
        raise ExportError(f"litert-quantizer refuses the model: {first_line(error)}") from error
