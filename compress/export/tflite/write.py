"""torch graph -> TFLite file, through litert-torch."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

# Registers the operators of pairs.
import torch.ao.quantization.fx._decomposed
from torch import Tensor, fx

from edgedl.compress.errors import ExportError
from edgedl.compress.export.culprit import explain_failure
from edgedl.compress.export.tflite.file_passes import rewrite_file
from edgedl.compress.graph.edit import copy_graph
from edgedl.runtime.backends.quiet import quiet
from edgedl.runtime.bundle.manifest import TensorSpec
from edgedl.runtime.errors import BackendUnavailableError

INSTALL = "litert-torch is missing: pip install 'edgedl[tflite-export]'"


def to_tflite(
    graph: fx.GraphModule,
    example_inputs: tuple[Tensor, ...],
    quantized: bool,
    float_islands: bool = False,
    weights_as_they_are: bool = False,
) -> bytes:
    """Return the graph as a TFLite model for a batch of one.

    Args:
        graph: a canonical float graph, or one emitted for "tflite".
        example_inputs: one float32 tensor [B >= 1, ...] per input.
        quantized: whether the graph holds quantize/dequantize pairs to be fused into integers.
        float_islands: whether some of its operators compute in float all the same. Then inputs
            and outputs are float32, too; otherwise they are int8.
        weights_as_they_are: whether every weight keeps the order of its channels.

    Raises:
        BackendUnavailableError: litert-torch is not installed.
        ExportError: an operator has no TFLite form.
    """
    os.environ["LITERT_TORCH_SHOW_PROGRESS"] = "0"
    try:
        with quiet():
            import litert_torch
    except ImportError as error:
        raise BackendUnavailableError(INSTALL) from error
    single = tuple(x[:1] for x in example_inputs)
    try:
        strict = _strict_conversion() if quantized and float_islands else nullcontext()
        with quiet(), strict, tempfile.TemporaryDirectory() as folder:
            config = _static_config() if quantized else None
            path = Path(folder) / "model.tflite"
            written = _dequantized_apart(graph) if quantized else graph
            litert_torch.convert(written, single, quant_config=config).export(str(path))
            return rewrite_file(path.read_bytes(), weights_as_they_are)
    except Exception as error:
        # The converter raises MLIR, torch and Python errors alike; the cause is in the message.
        with quiet():
            why = explain_failure(graph, single, litert_torch.convert, error)
        raise ExportError(f"litert-torch cannot convert {why}") from error


def _dequantized_apart(graph: fx.GraphModule) -> fx.GraphModule:
    """Return a copy in which every reader of a quantized tensor dequantizes it for itself.

    The converter decides for every operator whether its channels stand first or last, and mixes
    that up at a dequantize that both kinds read. It joins them again itself.
    """
    copy = copy_graph(graph)
    for node in list(copy.graph.nodes):
        if node.target is torch.ops.quantized_decomposed.dequantize_per_tensor.default:
            for user in list(node.users)[1:]:
                with copy.graph.inserting_after(node):
                    user.replace_input_with(node, copy.graph.node_copy(node))
    copy.recompile()
    return copy


def to_float16_weights(model: bytes) -> bytes:
    """Return a float TFLite model with its weights stored as float16.

    The runtime widens them when it loads the file: smaller, not faster.

    Raises:
        BackendUnavailableError: litert-quantizer is not installed.
    """
    try:
        with quiet():
            from litert_quantizer import algorithm_manager, qtyping
            from litert_quantizer import quantizer as litert
    except ImportError as error:
        raise BackendUnavailableError(INSTALL) from error
    with tempfile.TemporaryDirectory() as folder, quiet():
        source, target = Path(folder) / "float32.tflite", Path(folder) / "float16.tflite"
        source.write_bytes(model)
        quantizer = litert.Quantizer(str(source))
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
        quantizer.quantize(enable_progress_report=False).export_model(str(target))
        return target.read_bytes()


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


def describe_tflite(model: bytes) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return inputs and outputs of a model, in the order of the graph's.

    Sizes that the file leaves free are None, but for the batch: it is that of the file's example.
    """
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        interpreter = Interpreter(model_content=model)

    def specs(details: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
        return tuple(_spec(d) for d in sorted(details, key=lambda d: _position(d["name"])))

    return specs(interpreter.get_input_details()), specs(interpreter.get_output_details())


def _spec(details: dict[str, Any]) -> TensorSpec:
    scale, zero_point = details["quantization"]
    example, signature = details["shape"], details["shape_signature"]
    free = [axis > 0 and size < 0 for axis, size in enumerate(signature)]
    if len(free) != len(example):
        free = [False] * len(example)
    shape = tuple(None if f else int(d) for d, f in zip(example, free, strict=True))
    dtype = np.dtype(details["dtype"]).name
    if scale == 0.0:
        return TensorSpec.of(details["name"], shape, dtype)
    return TensorSpec.of(details["name"], shape, dtype, float(scale), int(zero_point))


def _position(name: str) -> int:
    """Return the argument number in names such as ``serving_default_args_0``."""
    found = re.search(r"(?:args|output)_(\d+)", name)
    return int(found.group(1)) if found else 0
