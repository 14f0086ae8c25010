"""Rewrites of an emitted graph that keep LiteRT's converter from quantizing what it should not."""

import torch
from torch import fx

from edgedl.compress.encodings.pair import Pair
from edgedl.compress.graph.edit import copy_graph, finish, insert_call
from edgedl.compress.graph.operators.joining import CONCAT
from edgedl.compress.graph.operators.operator import aten, first_input
from edgedl.compress.graph.operators.table import is_quantizable, row_of
from edgedl.compress.targets.target import Target

# Adding it changes no float, and no number of a grid but zero, which rounds to zero again.
_TINY = 1e-30
_ops = torch.ops.quantized_decomposed
_QUANTIZE = _ops.quantize_per_tensor.default
_DEQUANTIZE = _ops.dequantize_per_tensor.default


def set_apart(graph: fx.GraphModule) -> fx.GraphModule:
    """Return a copy of an emitted graph that the converter reads as it was meant.

    Every reader of a quantized tensor dequantizes it for itself: the converter decides for every
    operator whether its channels stand first or last, and mixes that up at a dequantize that both
    kinds read. It joins them again itself.

    What a float concat reads is hidden from it: it would put all of that on the grid of one.
    """
    copy = copy_graph(graph)
    for node in list(copy.graph.nodes):
        if node.target is _DEQUANTIZE:
            for user in list(node.users)[1:]:
                with copy.graph.inserting_after(node):
                    user.replace_input_with(node, copy.graph.node_copy(node))
    for node in list(copy.graph.nodes):
        if row_of(node) is CONCAT and not _is_on_one_grid(node):
            for source in node.all_input_nodes:
                if source.target is _DEQUANTIZE:
                    hide(copy, node, source)
    copy.recompile()
    return copy


def set_apart_int16(graph: fx.GraphModule, target: Target) -> fx.GraphModule:
    """Return a copy with operators that have no int16 kernels hidden on both sides.

    The converter gives such an operator the integers of its neighbours all the same, and then
    refuses it. What it reads and writes must not come from, or go to, a pair directly.
    """
    copy = copy_graph(graph)
    for node in list(copy.graph.nodes):
        if not is_quantizable(node) or target.int16.has(node):
            continue
        for source in node.all_input_nodes:
            hide(copy, node, source)
        after = insert_call(copy.graph, node.next, aten.add.Tensor, node, _TINY)
        for user in [u for u in node.users if u is not after]:
            user.replace_input_with(node, after)
    return finish(copy)


def hide(module: fx.GraphModule, node: fx.Node, source: fx.Node) -> None:
    """Put an addition of almost nothing between a node and what it reads."""
    before = insert_call(module.graph, node, aten.add.Tensor, source, _TINY)
    node.replace_input_with(source, before)


def _is_on_one_grid(concat: fx.Node) -> bool:
    """Say whether a concat reads and gives integers of one grid."""
    (reader, *others) = concat.users
    if others or reader.target is not _QUANTIZE:
        return False
    own = Pair.of(reader)
    return all(
        source.target is _DEQUANTIZE
        and (Pair.of(source).scale, Pair.of(source).zero_point) == (own.scale, own.zero_point)
        for source in first_input(concat)
    )
