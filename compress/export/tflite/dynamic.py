"""Dynamic int8 files, made from the float32 file by LiteRT's own quantizer."""

import tempfile
from pathlib import Path

from edgedl.compress.errors import ExportError, first_line
from edgedl.compress.export.tflite.write import INSTALL
from edgedl.runtime.backends.quiet import quiet
from edgedl.runtime.errors import BackendUnavailableError


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
