"""Forms of operators that LiteRT's converter gets wrong, before it sees them."""

import torch
from torch import Tensor, fx

from edgedl.compress.graph.edit import copy_graph, finish, insert_constant, inserter, take_place
from edgedl.compress.graph.operators.operator import argument, aten, first_input
from edgedl.compress.graph.values import shape_of

_BICUBIC = aten.upsample_bicubic2d.vec


def for_litert(graph: fx.GraphModule) -> fx.GraphModule:
    """Return a graph that computes the same, without what the converter cannot take.

    Bicubic resizing, whose lowering mixes up the layouts, is two products with stored matrices: its
    weights depend on the places alone.
    """
    if not graph.graph.find_nodes(op="call_function", target=_BICUBIC):
        return graph
    copy = copy_graph(graph)
    for node in copy.graph.find_nodes(op="call_function", target=_BICUBIC):
        _resize_by_matrices(copy, node)
    return finish(copy)


def _resize_by_matrices(module: fx.GraphModule, node: fx.Node) -> None:
    """Replace a bicubic resize of [N, C, H, W] of known sizes."""
    source = first_input(node)
    before, after = shape_of(source)[-2:], shape_of(node)[-2:]
    if not all(isinstance(size, int) for size in (*before, *after)):
        return
    insert = inserter(module, node)
    given = argument(node, "scale_factors") or [None, None]
    value = source
    for old, new, factor in list(zip(before, after, given, strict=True))[::-1]:
        matrix = _matrix(old, new, factor, bool(argument(node, "align_corners")))
        stored = insert_constant(module, node, f"{node.name}_{old}_{new}_{value.name}", matrix)
        # Each product is along the last axis, which is the other one then.
        value = insert(aten.matmul.default, value, stored)
        value = insert(aten.transpose.int, value, -1, -2)
    take_place(module, node, value)


def _matrix(old: int, new: int, factor: float | None, align_corners: bool) -> Tensor:
    """Return the weights of a resize along one axis: [old, new]."""
    columns = torch.eye(old).view(1, old, old, 1)
    size = None if factor is not None else [new, 1]
    factors = None if factor is None else [factor, 1.0]
    resized = _BICUBIC(columns, size, align_corners, factors)
    matrix: Tensor = resized[0, :, :, 0]
    return matrix
