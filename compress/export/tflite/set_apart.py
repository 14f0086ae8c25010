"""Rewrites of an emitted graph that keep LiteRT's converter from quantizing what it should not."""

import torch
from torch import fx

from edgedl.compress.encodings.affine import Affine
from edgedl.compress.encodings.pair import Pair
from edgedl.compress.graph.edit import copy_graph, finish, insert_call
from edgedl.compress.graph.operators.joining import CONCAT
from edgedl.compress.graph.operators.operator import aten, first_input
from edgedl.compress.graph.operators.table import is_quantizable, moves_values, row_of
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

    What a concat of integers reads gets the concat's grid: the kernel does not convert. What a
    float concat reads is hidden from it: it would put all of that on the grid of one. A reshaped
    tensor that an operator reads twice is hidden, too: the converter moves the reshape after the
    operator and leaves it on the grid that it had.
    """
    copy = copy_graph(graph)
    for node in list(copy.graph.nodes):
        if node.target is _DEQUANTIZE:
            for user in list(node.users)[1:]:
                with copy.graph.inserting_after(node):
                    user.replace_input_with(node, copy.graph.node_copy(node))
    for node in list(copy.graph.nodes):
        if _reads_reshaped_twice(node):
            hide(copy, node, node.all_input_nodes[0])
        if row_of(node) is not CONCAT:
            continue
        grid = _grid_of_integers(node)
        for source in node.all_input_nodes:
            if grid is None and source.target is _DEQUANTIZE:
                hide(copy, node, source)
            elif grid is not None and Pair.of(source).affine != grid:
                _convert(copy, node, source)
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


def _reads_reshaped_twice(node: fx.Node) -> bool:
    """Say whether both operands of an operator are one quantized tensor that was reshaped."""
    sources = [a for a in node.args if isinstance(a, fx.Node)]
    if len(sources) != 2 or sources[0] is not sources[1] or sources[0].target is not _DEQUANTIZE:
        return False
    quantize = first_input(sources[0])
    return quantize.target is _QUANTIZE and moves_values(first_input(quantize))


def _grid_of_integers(concat: fx.Node) -> Affine | None:
    """Return the grid of a concat that reads and gives integers; None of another one."""
    (reader, *others) = concat.users
    if others or reader.target is not _QUANTIZE:
        return None
    if any(source.target is not _DEQUANTIZE for source in first_input(concat)):
        return None
    return Pair.of(reader).affine


def _convert(module: fx.GraphModule, concat: fx.Node, source: fx.Node) -> None:
    """Round what a concat reads to the concat's grid; after it, it would be rounded to that anyhow.

    The converter would give the concat the source's grid if the second pair followed the first.
    """
    (reader,) = concat.users
    settings = reader.args[1:]
    apart = insert_call(module.graph, concat, aten.add.Tensor, source, _TINY)
    quantized = insert_call(module.graph, concat, _QUANTIZE, apart, *settings)
    rounded = insert_call(module.graph, concat, _DEQUANTIZE, quantized, *settings)
    concat.replace_input_with(source, rounded)
