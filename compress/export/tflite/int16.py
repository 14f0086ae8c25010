"""TFLite files with int8 weights and int16 activations ("16x8"): what the converter gets wrong."""

import numpy as np
from torch import Tensor, fx

from edgedl.compress.export.tflite.pack import pack_tflite
from edgedl.compress.export.tflite.set_apart import set_apart_int16
from edgedl.compress.export.tflite.write import to_tflite
from edgedl.compress.graph.pictures import NO_PICTURES, Pictures
from edgedl.compress.targets.target import Target

# Layers whose third input is a bias.
_WITH_BIAS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def to_tflite_int16(
    graph: fx.GraphModule,
    example_inputs: tuple[Tensor, ...],
    target: Target,
    float_islands: bool,
    pictures: Pictures = NO_PICTURES,
) -> bytes:
    """Return a graph emitted with int16 activations as a TFLite model for a batch of one.

    Args:
        graph: from ``emit`` for "tflite".
        example_inputs: one tensor [B >= 1, ...] per input.
        target: whose kernels compute it.
        float_islands: whether some of its operators compute in float; see ``to_tflite``.
        pictures: what the file has with channels last; see ``to_tflite``.

    Raises:
        BackendUnavailableError: litert-torch is not installed.
        ExportError: an operator has no TFLite form.
    """
    apart = set_apart_int16(graph, target)
    model = to_tflite(apart, example_inputs, True, float_islands, pictures=pictures)
    return widen_biases(model)


def widen_biases(model: bytes) -> bytes:
    """Return a TFLite model with the int32 biases of layers that read int16 stored as int64.

    With int32 the kernel of the depthwise convolution refuses the file, and that of the
    convolution reads beyond the bias and computes nonsense. The values stay as they are.

    Source: TFLite 8-bit quantization specification, "16x8": biases are int64, and so is what the
    kernels add up in.
    """
    from ai_edge_litert import schema_py_generated as schema

    loaded = schema.ModelT.InitFromPackedBuf(model, 0)
    wanted = {getattr(schema.BuiltinOperator, name) for name in _WITH_BIAS}
    for graph in loaded.subgraphs:
        for operator in graph.operators:
            code = loaded.operatorCodes[operator.opcodeIndex]
            inputs = [graph.tensors[i] for i in operator.inputs if i >= 0]
            if code.builtinCode not in wanted or len(inputs) < 3:
                continue
            reads, bias = inputs[0], inputs[2]
            if reads.type == schema.TensorType.INT16 and bias.type == schema.TensorType.INT32:
                narrow = np.asarray(loaded.buffers[bias.buffer].data, np.uint8).view(np.int32)
                # A buffer of its own: the old one may serve another tensor.
                bias.buffer, bias.type = len(loaded.buffers), schema.TensorType.INT64
                wide = narrow.astype(np.int64).view(np.uint8)
                loaded.buffers.append(schema.BufferT(data=wide))
    return pack_tflite(loaded)
