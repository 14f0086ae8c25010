"""torch graph -> ONNX file, without the exporter's metadata."""

import io
from collections.abc import Sequence
from typing import Any

import onnx
import torch
from torch import Tensor, fx

from edgedl.compress.errors import ExportError
from edgedl.compress.export.culprit import explain_failure
from edgedl.compress.export.onnx.faster_torch import export_faster
from edgedl.compress.export.onnx.file_passes import to_file
from edgedl.compress.export.onnx.float8 import float8_translations
from edgedl.compress.export.onnx.recurrent import translations
from edgedl.compress.graph.edit import input_nodes, output_nodes
from edgedl.compress.graph.lengths import free_output_axes
from edgedl.compress.graph.recurrent_shapes import know_recurrent_shapes
from edgedl.compress.graph.trace import MAX_BATCH
from edgedl.compress.modelfile.onnx_shapes import infer_shapes, own_inputs, shape_of
from edgedl.runtime.backends.quiet import without_warnings
from edgedl.runtime.bundle.manifest import TensorSpec
from edgedl.runtime.errors import BadInputError

# 20 is the newest opset that ONNX Runtime's int8 rewriter and TensorRT 10's parser both accept.
OPSET = 20
# On ARM processors with half-float arithmetic ONNX Runtime 1.31 refuses average pools of opset 19
# and later, whose kernels it has for older ones alone.
HALF_OPSET = 18
# The first that has 4-bit integers and blocks of them with a scale each.
BLOCK_OPSET = 21
# Convolutions of bfloat16 came with this one; ONNX Runtime has no such kernels anyhow.
BFLOAT16_OPSET = 22


def to_onnx(
    graph: fx.GraphModule,
    example_inputs: tuple[Tensor, ...],
    free_axes: tuple[int, ...] = (0,),
    opset: int = OPSET,
) -> bytes:
    """Return the graph as an ONNX model with a free batch size.

    Args:
        graph: a canonical or emitted graph.
        example_inputs: one float32 tensor [B >= 2, ...] per input.
        free_axes: axes of every input whose size stays free; 0, the batch, always does.
        opset: version of ONNX's operators.

    Raises:
        ExportError: an operator has no ONNX form.
    """
    names = [n.name for n in input_nodes(graph)]
    outputs = [f"output_{i}" for i in range(len(output_nodes(graph)))]
    shapes = tuple({0: torch.export.Dim("batch", min=1, max=MAX_BATCH)} for _ in names)
    try:
        program = _translate(
            graph,
            example_inputs,
            opset_version=opset,
            input_names=names,
            output_names=outputs,
            dynamic_shapes=shapes,
        )
    except Exception as error:
        # The exporter raises its own and torch's classes alike; the cause is in the message.
        why = explain_failure(graph, example_inputs, _translate, error)
        raise ExportError(f"torch.onnx cannot export {why}") from error
    buffer = io.BytesIO()
    if program is None:
        raise ExportError("torch.onnx exported nothing")
    onnx.save(program.model_proto, buffer)
    model = onnx.load_from_string(buffer.getvalue())
    if any(free_axes):
        _free(model.graph, free_axes, free_output_axes(graph, example_inputs, free_axes))
    return to_file(model)


def _translate(
    graph: fx.GraphModule, inputs: tuple[Tensor, ...], **options: Any
) -> torch.onnx.ONNXProgram | None:
    table = {**translations(), **float8_translations()}
    with without_warnings():
        export_faster()
        know_recurrent_shapes()
        return torch.onnx.export(
            graph, inputs, dynamo=True, custom_translation_table=table, verbose=False, **options
        )


def _free(
    graph: onnx.GraphProto, inputs: tuple[int, ...], outputs: Sequence[tuple[int, ...]]
) -> None:
    """Declare axes of inputs and outputs as free; ``check_other_sizes`` runs the file at two sizes.

    The exporter writes the example's sizes, because it traces recurrent layers at one length.
    """
    # Inferred shapes of inner values hold the example's length too.
    del graph.value_info[:]
    declared = [(value, inputs) for value in graph.input]
    declared += list(zip(graph.output, outputs, strict=True))
    for value, axes in declared:
        for axis in axes:
            if axis:
                value.type.tensor_type.shape.dim[axis].dim_param = f"axis_{axis}"


def _with_known_outputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose outputs have shapes: some tools leave them to be inferred."""
    known = all(shape_of(value) is not None for value in model.graph.output)
    return model if known else infer_shapes(model)


def describe_onnx(model: bytes) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return inputs and outputs of a model, in the order of the graph's.

    Raises:
        BadInputError: one of them is no tensor, or of a type or a rank that edgedl cannot handle.
    """
    graph = _with_known_outputs(onnx.load_from_string(model)).graph

    def spec(value: onnx.ValueInfoProto) -> TensorSpec:
        number, shape = value.type.tensor_type.elem_type, shape_of(value)
        if not number or shape is None:
            what = "is no tensor" if not number else "has any number of axes"
            raise BadInputError(f"'{value.name}' {what}, which edgedl cannot handle")
        dtype = onnx.helper.tensor_dtype_to_np_dtype(number)
        return TensorSpec.of(value.name, shape, str(dtype))

    return tuple(spec(v) for v in own_inputs(graph)), tuple(spec(v) for v in graph.output)
