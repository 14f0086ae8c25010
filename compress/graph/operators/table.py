"""The table of operators: all that edgedl knows of them, a row each. Everything else is float."""

from functools import cache
from typing import Any

import torch
from torch import fx

from edgedl.compress.graph.operators import (
    activation,
    attention,
    convolution,
    elementwise,
    joining,
    linear,
    lookup,
    moving,
    normalization,
    pooling,
    recurrent,
    reduction,
)
from edgedl.compress.graph.operators.operator import Operator, Ranges, Weighted
from edgedl.compress.graph.values import is_floating

# The families. A new operator is a row in its family's file.
ROWS: tuple[Operator, ...] = (
    *convolution.ROWS,
    *linear.ROWS,
    *activation.ROWS,
    *pooling.ROWS,
    *normalization.ROWS,
    *elementwise.ROWS,
    *moving.ROWS,
    *joining.ROWS,
    *reduction.ROWS,
    *recurrent.ROWS,
    *attention.ROWS,
    *lookup.ROWS,
)
# What holds of every other operator: it computes in float and is never cut through.
NO_ROW = Operator(())
_BY_OVERLOAD = {overload: row for row in ROWS for overload in row.overloads}


def row_of(node: fx.Node) -> Operator:
    """Return the row of a node's operator, ``NO_ROW`` if it has none."""
    return _row(node.target)


@cache
def _row(target: Any) -> Operator:
    if torch.Tag.pointwise in getattr(target, "tags", ()):
        return _BY_OVERLOAD.get(target, elementwise.POINTWISE)
    return _BY_OVERLOAD.get(target, NO_ROW)


def has_jumps(graph: fx.GraphModule) -> bool:
    """Say whether the last digit of a float inside a graph can change its outputs by a step."""
    return any(
        row_of(node).jumps and any(is_floating(x) for x in node.all_input_nodes)
        for node in graph.graph.nodes
    )


def moves_values(node: fx.Node) -> bool:
    """Say whether a node only moves values, so that its output is on the grid of its input."""
    row = row_of(node)
    return row.ranges is Ranges.PASSES and row.passes_if(node)


def is_quantizable(node: fx.Node) -> bool:
    """Say whether a node can compute in integers on some runtime."""
    ranges = row_of(node).ranges
    return moves_values(node) if ranges is Ranges.PASSES else ranges is not Ranges.FLOAT


def folds_activation(node: fx.Node) -> bool:
    """Say whether runtimes fold an activation behind a node into it."""
    return row_of(node).folds_activation(node)


def is_weighted(node: fx.Node) -> bool:
    """Say whether a node is a convolution or linear layer, whose weight can be integers."""
    return row_of(node).weighted


def has_stored_weight(node: fx.Node) -> bool:
    """Say whether a node is such a layer, and its weight is stored, not computed."""
    return is_weighted(node) and Weighted.of(node).has_stored_weight


def is_clip(node: fx.Node) -> bool:
    """Say whether a node is an activation that runtimes fold into the operator before it."""
    return row_of(node).ranges is Ranges.FUSES


def is_recurrent(node: fx.Node) -> bool:
    """Say whether a node steps through time."""
    return row_of(node) in recurrent.ROWS


def groups_of(node: fx.Node) -> int:
    """Return the groups of a convolution; a linear layer has one."""
    convolves = row_of(node) in convolution.ROWS
    return convolution.Convolution.of(node).groups if convolves else 1
