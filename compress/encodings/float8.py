"""FP8 (E4M3): 8-bit floats with scales; what TensorRT computes with on recent GPUs.

The emitted graph casts to ``torch.float8_e4m3fn`` and back: it is the reference that the file is
held against.

Source: Micikevicius et al., "FP8 formats for deep learning", 2022: E4M3 for weights and activations
(section 3), scales that bring the largest magnitude to the format's (section 3.2).
"""

import torch
from torch import Tensor, fx

from edgedl.compress.encodings.affine import SMALLEST_WIDTH
from edgedl.compress.encodings.encodings import Encodings, Range, per_channel
from edgedl.compress.encodings.placement import place, quantized_nodes
from edgedl.compress.graph.edit import copy_graph, finish, get_tensor, insert_call, insert_constant
from edgedl.compress.graph.operators.operator import Weighted, set_argument
from edgedl.compress.graph.operators.table import is_weighted, row_of
from edgedl.compress.graph.values import record_value, value_of
from edgedl.compress.targets.target import Target

E4M3 = torch.float8_e4m3fn
E4M3_MAX = torch.finfo(E4M3).max


@torch.library.custom_op("edgedl::quantize_float8", mutates_args=())
def quantize_float8(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Return a float32 tensor divided by its scale in E4M3, saturated at its largest values.

    Args:
        x: float32, any shape.
        scale: float32 [].
        zero_point: E4M3 [], zero; its type is what an ONNX file reads.
    """
    return (x / scale).clamp(-E4M3_MAX, E4M3_MAX).to(zero_point.dtype)


@quantize_float8.register_fake
def _(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    return torch.empty_like(x, dtype=zero_point.dtype)


@torch.library.custom_op("edgedl::dequantize_float8", mutates_args=())
def dequantize_float8(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int) -> Tensor:
    """Return E4M3 values times their scale, float32.

    Args:
        x: E4M3, any shape.
        scale: float32 [], or [C] along ``axis``.
        zero_point: E4M3, zeros of the scale's shape.
        axis: of the channels.
    """
    return x.float() * (per_channel(scale, axis, x.ndim) if scale.ndim else scale)


@dequantize_float8.register_fake
def _(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int) -> Tensor:
    return torch.empty_like(x, dtype=torch.float32)


def float8_scale(values: Range) -> float:
    """Return the scale of a tensor of a range, that brings its largest magnitude to 448.

    >>> float8_scale(Range(-896.0, 10.0))
    2.0
    """
    return max(-values.lo, values.hi, SMALLEST_WIDTH) / E4M3_MAX


def emit_float8(graph: fx.GraphModule, encodings: Encodings, target: Target) -> fx.GraphModule:
    """Return a copy of a canonical float graph with E4M3 where a target wants quantized values.

    Activations get one scale per tensor, weights one per output channel; biases stay float32.
    """
    emitted = copy_graph(graph)
    chosen = quantized_nodes(emitted.graph, encodings, target)
    for node, users in place(emitted.graph, encodings, target).items():
        scale = torch.tensor(float8_scale(encodings.activations[node.name]))
        # Constants stand before the node that follows, which reads what they are used on.
        constants = _constants(emitted, node.next, f"{node.name}_float8", scale)
        last = constants[-1].next
        quantized = insert_call(emitted.graph, last, quantize_float8._opoverload, node, *constants)
        pair = insert_call(
            emitted.graph, last, dequantize_float8._opoverload, quantized, *constants, 0
        )
        record_value(pair, value_of(node))
        for user in users:
            user.replace_input_with(node, pair)
    for node in list(emitted.graph.nodes):
        if is_weighted(node) and node in chosen:
            set_argument(node, "weight", _float8_weight(emitted, node, encodings))
    return finish(emitted)


def _float8_weight(module: fx.GraphModule, node: fx.Node, encodings: Encodings) -> fx.Node:
    """Return a node with the dequantized weight; the weight itself is stored in E4M3."""
    source, axis = Weighted.of(node).weight_path, row_of(node).weight_axis
    weight = get_tensor(module, source)
    scale = encodings.weights[source] / E4M3_MAX
    values = (weight / per_channel(scale, axis, weight.ndim)).clamp(-E4M3_MAX, E4M3_MAX).to(E4M3)
    path = f"{node.name}_weight_float8"
    stored = insert_constant(module, node, path, values)
    constants = _constants(module, node, path, scale)
    return insert_call(module.graph, node, dequantize_float8._opoverload, stored, *constants, axis)


def _constants(
    module: fx.GraphModule, before: fx.Node, path: str, scale: Tensor
) -> tuple[fx.Node, fx.Node]:
    """Store a scale and its zero point, and return the nodes that read them."""
    zero_point = torch.zeros(scale.shape, dtype=E4M3)
    return (
        insert_constant(module, before, f"{path}_scale", scale.to(torch.float32)),
        insert_constant(module, before, f"{path}_zero_point", zero_point),
    )
