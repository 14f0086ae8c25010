"""torch graph -> TFLite file, through litert-torch."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor, fx

from edgedl.compress.errors import ExportError
from edgedl.compress.export.culprit import explain_failure
from edgedl.compress.export.isolated import isolated
from edgedl.compress.export.tflite.channels_last import channels_last, inputs_of_file
from edgedl.compress.export.tflite.faster_torch import convert_faster
from edgedl.compress.export.tflite.file_passes import rewrite_file
from edgedl.compress.export.tflite.forms import for_litert
from edgedl.compress.export.tflite.interface import write_layouts
from edgedl.compress.export.tflite.set_apart import set_apart
from edgedl.compress.graph.pictures import NO_PICTURES, Pictures
from edgedl.runtime.backends.quiet import quiet
from edgedl.runtime.errors import BackendUnavailableError
from edgedl.runtime.install import install_line


def to_tflite(
    graph: fx.GraphModule,
    example_inputs: tuple[Tensor, ...],
    quantized: bool,
    float_islands: bool = False,
    weights_as_they_are: bool = False,
    pictures: Pictures = NO_PICTURES,
) -> bytes:
    """Return the graph as a TFLite model for a batch of one.

    Args:
        graph: a canonical float graph, or one emitted for "tflite".
        example_inputs: one float32 tensor [B >= 1, ...] per input.
        quantized: whether the graph holds quantize/dequantize pairs to be fused into integers.
        float_islands: whether some of its operators compute in float all the same. Then inputs
            and outputs are float32, too; otherwise they are int8.
        weights_as_they_are: whether every weight keeps the order of its channels.
        pictures: the inputs and outputs [N, C, H, W] that the file takes and gives as [N, H, W, C].

    Raises:
        BackendUnavailableError: litert-torch is not installed.
        ExportError: an operator has no TFLite form.
    """
    os.environ["LITERT_TORCH_SHOW_PROGRESS"] = "0"
    try:
        with quiet():
            # Here, so that the copies of this process that convert have it already; scipy's parts
            # are imported by a conversion.
            import litert_torch  # noqa: F401
            import scipy.cluster
            import scipy.spatial  # noqa: F401
    except ImportError as error:
        raise BackendUnavailableError.of(error, missing()) from error
    convert_faster()
    single = inputs_of_file(tuple(x[:1] for x in example_inputs), pictures)
    written = for_litert(set_apart(graph) if quantized else graph)
    written = channels_last(written, pictures)
    strict = quantized and float_islands
    try:
        model = isolated(lambda: _convert(written, single, quantized, strict))
    except Exception as error:
        # The converter raises MLIR, torch and Python errors alike; the cause is in the message.
        why = explain_failure(written, single, _try_to_convert, error)
        raise ExportError(f"litert-torch cannot convert {why}") from error
    return write_layouts(rewrite_file(model, weights_as_they_are), pictures)


def _convert(
    graph: fx.GraphModule, single: tuple[Tensor, ...], quantized: bool, strict: bool
) -> bytes:
    import litert_torch

    with (
        quiet(),
        _strict_conversion() if strict else nullcontext(),
        tempfile.TemporaryDirectory() as folder,
    ):
        path = Path(folder) / "model.tflite"
        config = _static_config() if quantized else None
        litert_torch.convert(graph, single, quant_config=config).export(str(path))
        return path.read_bytes()


def _try_to_convert(graph: fx.GraphModule, single: tuple[Tensor, ...]) -> None:
    isolated(lambda: _convert(graph, single, quantized=False, strict=False))


def _static_config() -> Any:
    """Return the switch that makes the converter fuse quantize/dequantize pairs.

    Without it the file silently computes in float between the pairs. The quantizer inside is
    never consulted.
    """
    from litert_torch.quantize import pt2e_quantizer, quant_config

    scheme = pt2e_quantizer.get_symmetric_quantization_config(is_per_channel=True)
    return quant_config.QuantConfig(
        pt2e_quantizer=pt2e_quantizer.PT2EQuantizer().set_global(scheme)
    )


@contextmanager
def _strict_conversion() -> Iterator[None]:
    """Let the converter quantize only what stands between pairs.

    Left alone, it quantizes a float operator between two integer ones as well, with scales of its
    own. It has a switch for that, which litert-torch does not hand through.
    """
    from litert_converter import converter_api_ext

    original = converter_api_ext.ConvertToTFLConfig

    def strict_config() -> Any:
        config = original()
        config.strict_qdq_mode = True
        return config

    converter_api_ext.ConvertToTFLConfig = strict_config
    try:
        yield
    finally:
        converter_api_ext.ConvertToTFLConfig = original


def missing() -> str:
    """Return what to say where the converter or its quantizer is not installed."""
    return f"litert-torch is missing: {install_line('tflite-export')}"
