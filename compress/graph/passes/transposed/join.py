"""Opened transposed convolutions as what they were."""

import math
from typing import Any

import torch

# Registers the operators of pairs.
import torch.ao.quantization.fx._decomposed
from torch import fx

from edgedl.compress.graph.edit import (
    copy_graph,
    finish,
    get_tensor,
    insert_constant,
    insert_shaped_call,
    is_constant,
)
from edgedl.compress.graph.operators.table import FUSED_ACTIVATIONS, aten
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.passes.transposed.opened import ORIGIN, Origin
from edgedl.compress.graph.passes.transposed.phases import (
    operands_of,
    phases_of,
    weight_of_phases,
)

MOVES = (
    aten.slice.Tensor,
    aten.pixel_shuffle.default,
    aten.unflatten.int,
    aten.permute.default,
    aten.flatten.using_ints,
)
PAIR = (
    torch.ops.quantized_decomposed.quantize_per_tensor.default,
    torch.ops.quantized_decomposed.dequantize_per_tensor.default,
)


class JoinTransposed(Pass):
    """Write the convolutions that ``OpenTransposed`` made as transposed ones again.

    One that is quantized, or whose phases no longer belong together, since a stage has changed
    their weights or biases apart, stays open.

    Before: ``pixel_shuffle(relu(conv2d(x, phases of w)), 2)``.
    After: ``relu(conv_transpose2d(x, w, stride=2))``.
    """

    def looks_at(self, node: fx.Node) -> bool:
        """Say whether a node gives what a transposed convolution gave."""
        return ORIGIN in node.meta

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Join the phases that one node gives."""
        origin: Origin = node.meta[ORIGIN]
        moved: Any = node
        while moved.target in MOVES:
            moved = moved.args[0]
        activation = moved if moved.target in FUSED_ACTIVATIONS else None
        convolution = moved if activation is None else activation.args[0]
        if convolution.target is not aten.conv2d.default:
            return None
        x, opened, bias = operands_of(convolution)
        if not is_constant(opened):
            return None
        geometry, phases = origin.geometry, get_tensor(module, opened.target)
        weight = weight_of_phases(phases, geometry)
        if not torch.equal(phases_of(weight, geometry), phases):
            return None
        path = f"{node.name}_joined"
        if bias is not None:
            values = get_tensor(module, bias.target).reshape(-1, math.prod(geometry.stride))
            if not (values == values[:, :1]).all():
                return None
            bias = insert_constant(module, node, f"{path}_bias", values[:, 0])
        if origin.padded:
            # Zeros and values of a grid are on it already.
            while x.target in PAIR:
                x = x.args[0]
            x = x.args[0]
        stored = insert_constant(module, node, f"{path}_weight", weight)
        transposed = (aten.conv_transpose2d.input, x, stored, bias, *geometry.arguments)
        result = insert_shaped_call(module, node, *transposed)
        result.meta["val"] = node.meta["val"]
        if activation is not None:
            behind = (activation.target, result, *activation.args[1:])
            result = insert_shaped_call(module, node, *behind)
            result.meta["val"] = node.meta["val"]
        return result


def join_transposed_convolutions(module: fx.GraphModule) -> fx.GraphModule:
    """Return a copy with transposed convolutions where ``OpenTransposed`` found them.

    ONNX Runtime's float kernels compute those faster. The graph itself comes back if it has none.
    """
    if not any(ORIGIN in node.meta for node in module.graph.nodes):
        return module
    joined = copy_graph(module)
    JoinTransposed()(joined)
    return finish(joined)
