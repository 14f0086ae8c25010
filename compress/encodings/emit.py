"""Write the table into a graph: quantize/dequantize operators where a target wants them.

The emitted graph runs in torch. It is the reference that the exported file is held against.
"""

import torch
from torch import Tensor, fx

from edgedl.compress.encodings.affine import Affine, grid_of
from edgedl.compress.encodings.encodings import (
    Encodings,
    quantize_weight,
    round_bias,
    weight_scales,
)
from edgedl.compress.encodings.faster_pairs import compute_pairs_faster
from edgedl.compress.encodings.float8 import emit_float8
from edgedl.compress.encodings.integer_forms import compute_on_integers, open_for_integers
from edgedl.compress.encodings.pair import Pair
from edgedl.compress.encodings.placement import place, quantized_nodes
from edgedl.compress.graph.edit import (
    copy_graph,
    finish,
    get_tensor,
    insert_call,
    insert_constant,
    is_constant,
    set_tensor,
)
from edgedl.compress.graph.operators.operator import Weighted, set_argument
from edgedl.compress.graph.operators.table import is_weighted, row_of
from edgedl.compress.graph.passes.fold.input_norm import write_input_norms
from edgedl.compress.graph.passes.transposed.join import join_transposed_convolutions
from edgedl.compress.graph.values import record_value, value_of
from edgedl.compress.targets.target import Target

_ops = torch.ops.quantized_decomposed
_INT32_MAX = 2**31


def emit(graph: fx.GraphModule, encodings: Encodings, target: Target) -> fx.GraphModule:
    """Return a copy of a canonical float graph, quantized as ``target`` wants it.

    Activations get per-tensor encodings, weights symmetric per-channel int8; ``emit_float8`` writes
    tables of 8-bit floats. Where a target has integer biases they are rounded to the int32 grid
    (input scale times weight scale) that its kernels compute on, so that torch gives the same
    integers.
    """
    if encodings.precision == "fp8":
        return emit_float8(graph, encodings, target)
    compute_pairs_faster()
    emitted = copy_graph(graph)
    encodings = open_for_integers(emitted, encodings, target)
    chosen = quantized_nodes(emitted.graph, encodings, target)
    placement = place(emitted.graph, encodings, target)
    qmax = encodings.weight_qmax
    for node, users in placement.items():
        affine = grid_of(encodings, node.name, target)
        pair = _insert_pair(emitted, node, node.next, affine, target)
        for user in users:
            user.replace_input_with(node, pair)
    for node in list(emitted.graph.nodes):
        if is_weighted(node) and node in chosen:
            scales = weight_scales(encodings.weights[Weighted.of(node).weight_path], qmax)
            if target.integer_biases:
                _put_bias_on_grid(emitted, node, scales)
            weight = _quantize_weight(emitted, node, scales, qmax, target)
            set_argument(node, "weight", weight)
    if target.clips_integers:
        compute_on_integers(emitted)
    emitted = finish(emitted)
    # Those that are kept in float.
    if target.joins_phases:
        emitted = join_transposed_convolutions(emitted)
    return emitted if target.input_norms == "integer" else write_input_norms(emitted)


def _insert_pair(
    module: fx.GraphModule, value: fx.Node, before: fx.Node, affine: Affine, target: Target
) -> fx.Node:
    """Insert quantize and dequantize of ``value`` and return the dequantize.

    A constant is stored as the integers, unless the runtime's converter wants the floats.
    """
    graph = module.graph
    arguments = (
        affine.scale,
        affine.zero_point,
        affine.qmin,
        affine.qmax,
        getattr(torch, affine.dtype),
    )
    if is_constant(value) and target.constants == "integers":
        integers = _ops.quantize_per_tensor(get_tensor(module, str(value.target)), *arguments)
        quantized = insert_constant(module, before, f"{value.name}_{affine.dtype}", integers)
    else:
        quantized = insert_call(graph, before, _ops.quantize_per_tensor.default, value, *arguments)
    pair = insert_call(graph, before, _ops.dequantize_per_tensor.default, quantized, *arguments)
    record_value(pair, value_of(value))
    return pair


def _quantize_weight(
    module: fx.GraphModule, node: fx.Node, scales: Tensor, qmax: int, target: Target
) -> fx.Node:
    """Return a node with the dequantized weight, placed before ``node``.

    A converter that wants to quantize the float weight itself gets it so.
    """
    layer, axis = Weighted.of(node), row_of(node).weight_axis
    path = f"{node.name}_weight"
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    scale = insert_constant(module, node, f"{path}_scale", scales)
    zero_point = insert_constant(module, node, f"{path}_zero_point", zeros)
    arguments = (scale, zero_point, axis, -qmax, qmax, torch.int8)
    if target.constants == "floats":
        quantized = insert_call(
            module.graph, node, _ops.quantize_per_channel.default, layer.weight, *arguments
        )
    else:
        weight = get_tensor(module, layer.weight_path)
        values = quantize_weight(weight, scales, axis, qmax)
        quantized = insert_constant(module, node, f"{path}_int8", values)
    return insert_call(
        module.graph, node, _ops.dequantize_per_channel.default, quantized, *arguments
    )


def _put_bias_on_grid(module: fx.GraphModule, node: fx.Node, scales: Tensor) -> None:
    """Round a bias to multiples of input scale times weight scale, as the int32 kernels do."""
    layer = Weighted.of(node)
    if layer.bias_path is None or layer.input.target is not _ops.dequantize_per_tensor.default:
        return
    bias = get_tensor(module, layer.bias_path)
    input_scale = Pair.of(layer.input).scale
    if (bias.double() / (scales.double() * input_scale)).abs().max() >= _INT32_MAX:
        raise OverflowError(f"the bias of '{node.name}' does not fit int32 at its scale")
    path = f"{node.name}_bias_int32_grid"
    set_tensor(module, path, round_bias(bias, scales, input_scale))
    with module.graph.inserting_before(node):
        set_argument(node, "bias", module.graph.get_attr(path))
