"""Opened transposed convolutions as what they were."""

import math
from collections.abc import Collection
from typing import Any

import torch

# Registers the operators of pairs.
import torch.ao.quantization.fx._decomposed
from torch import fx

from edgedl.compress.graph.edit import (
    copy_graph,
    finish,
    get_tensor,
    insert_again,
    insert_constant,
    insert_shaped_call,
)
from edgedl.compress.graph.operators.operator import Weighted, aten, first_input
from edgedl.compress.graph.operators.table import is_clip
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.passes.transposed.opened import ORIGIN, Origin
from edgedl.compress.graph.passes.transposed.phases import phases_of, weight_of_phases
from edgedl.compress.graph.values import record_value, value_of

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
        last = _behind(node, MOVES)
        convolution = first_input(last) if is_clip(last) else last
        if convolution.target is not aten.conv2d.default:
            return None
        layer = Weighted.of(convolution)
        if not layer.is_stored:
            return None
        geometry, phases = origin.geometry, get_tensor(module, layer.weight_path)
        weight = weight_of_phases(phases, geometry)
        if not torch.equal(phases_of(weight, geometry), phases):
            return None
        path, x, bias = f"{node.name}_joined", layer.input, layer.bias
        if layer.bias_path is not None:
            values = get_tensor(module, layer.bias_path).reshape(-1, math.prod(geometry.stride))
            if not (values == values[:, :1]).all():
                return None
            bias = insert_constant(module, node, f"{path}_bias", values[:, 0])
        if origin.padded:
            # Zeros and values of a grid are on it already.
            x = first_input(_behind(x, PAIR))
        stored = insert_constant(module, node, f"{path}_weight", weight)
        transposed = (aten.conv_transpose2d.input, x, stored, bias, *geometry.arguments)
        result = insert_shaped_call(module, node, *transposed)
        record_value(result, value_of(node))
        if last is not convolution:
            result = insert_again(module, node, last, convolution, result)
            record_value(result, value_of(node))
        return result


def _behind(node: fx.Node, moves: Collection[Any]) -> fx.Node:
    """Return what made a value, behind operators that only move it."""
    while node.target in moves:
        node = first_input(node)
    return node


def join_transposed_convolutions(module: fx.GraphModule) -> fx.GraphModule:
    """Return a copy with transposed convolutions where ``OpenTransposed`` found them.

    ONNX Runtime's float kernels compute those faster. The graph itself comes back if it has none.
    """
    if not any(ORIGIN in node.meta for node in module.graph.nodes):
        return module
    joined = copy_graph(module)
    JoinTransposed()(joined)
    return finish(joined)
