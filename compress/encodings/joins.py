"""Which tensors share one grid, and which concats keep theirs apart."""

import math
from collections.abc import Collection, Mapping, Sequence

from torch import fx

from edgedl.compress.encodings.encodings import Range
from edgedl.compress.encodings.observers import Histogram
from edgedl.compress.encodings.ranges import LEVELS
from edgedl.compress.graph.operators.operator import Ranges, first_input
from edgedl.compress.graph.operators.table import (
    folds_activation,
    is_clip,
    is_quantizable,
    moves_values,
    row_of,
)

# A joined tensor that has less than this on the grid of all, in dB ...
LEAST_DB = 25.0
# ... and would have so much more on a grid of its own is damaged by the concat.
DAMAGE_DB = 6.0


def damaging_joins(
    graph: fx.Graph,
    seen: Mapping[str, Histogram],
    ranges: Mapping[str, Range],
    float_nodes: Collection[str],
    bits: int,
) -> frozenset[str]:
    """Return the concats to keep in float: one grid for all that they join destroys some of it.

    Boxes of pixels and scores of 0 to 1 in one tensor are such. What follows, element by element,
    up to the network's outputs stays float with them. Before a product of integers the joined
    tensor needs one grid anyhow: such a concat is left as it is, unless what it destroys is read
    elsewhere, too, an output perhaps: then it alone is float, and what it joins is rounded anew.

    Args:
        graph: canonical.
        seen: node name -> what it held on the calibration samples.
        ranges: node name -> its own range.
        float_nodes: names of the operators that are kept in float already.
        bits: of the integers.
    """
    apart: set[str] = set()
    for node in reversed(graph.nodes):
        if row_of(node).ranges is not Ranges.JOINS or node.name in float_nodes:
            continue
        behind = _up_to_outputs(node)
        sources = {_moved(n): n for n in node.all_input_nodes}
        members = [n for n in sources if n.name in seen and n.name in ranges]
        whole = _union([ranges[n.name] for n in members])
        damaged = [n for n in members if _is_damaged(seen[n.name], ranges[n.name], whole, bits)]
        if behind is None:
            damaged = [n for n in damaged if _is_read_elsewhere(sources[n])]
        if damaged:
            apart |= {node.name, *(n.name for n in behind or ())}
    return frozenset(apart)


def _is_damaged(seen: Histogram, own: Range, whole: Range | None, bits: int) -> bool:
    if whole is None:
        return False
    together, alone = _decibels(seen, whole, bits), _decibels(seen, own, bits)
    return together < LEAST_DB and alone >= together + DAMAGE_DB


def _decibels(seen: Histogram, grid: Range, bits: int) -> float:
    """Return the spread of a tensor's values over the rounding noise of a grid, in dB."""
    step = (grid.hi - grid.lo) / LEVELS[bits]
    variance = seen.variance
    if not step or not variance:
        return math.inf
    return 10 * math.log10(12 * variance / step**2)


def _up_to_outputs(node: fx.Node) -> list[fx.Node] | None:
    """Return all that computes with a value up to the outputs; None if a product does."""
    found: list[fx.Node] = []
    pending = list(node.users)
    while pending:
        user = pending.pop()
        if row_of(user).product:
            return None
        if user.op == "call_function" and user not in found:
            pending += user.users
            if is_quantizable(user) and not moves_values(user):
                found.append(user)
    return found


def _moved(node: fx.Node) -> fx.Node:
    """Return what a node moves, whatever stands between."""
    while moves_values(node):
        node = first_input(node)
    return node


def _is_read_elsewhere(node: fx.Node) -> bool:
    """Say whether a joined node, or what it moves, has more than one reader."""
    while len(node.users) == 1 and moves_values(node):
        node = first_input(node)
    return len(node.users) > 1


def _union(ranges: Sequence[Range]) -> Range | None:
    if not ranges:
        return None
    return Range(min(r.lo for r in ranges), max(r.hi for r in ranges))


def groups_on_one_grid(graph: fx.Graph, float_nodes: Collection[str] = ()) -> list[list[fx.Node]]:
    """Return the nodes joined by moves, concats and clipped pools, by union-find.

    A concat that is kept in float, by its name in ``float_nodes``, joins nothing. What has one grid
    in all kernels, such as a sigmoid, stays apart from a concat that reads others, too: its values
    are rounded anew there.
    """
    root: dict[fx.Node, fx.Node] = {}

    def find(node: fx.Node) -> fx.Node:
        while root.get(node, node) is not node:
            node = root[node]
        return node

    for node in graph.nodes:
        if moves_values(node) or _clips_pool(node):
            root[node] = find(first_input(node))
        elif row_of(node).ranges is Ranges.JOINS and node.name not in float_nodes:
            for joined in _on_its_grid(node):
                root[find(joined)] = find(node)
    groups: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.nodes:
        groups.setdefault(find(node), []).append(node)
    return list(groups.values())


def _on_its_grid(concat: fx.Node) -> list[fx.Node]:
    """Return what a concat reads that can have its grid."""
    sources: list[fx.Node] = list(first_input(concat))
    fixed = [row_of(_moved(source)).fixed_range for source in sources]
    if len(set(fixed)) == 1:
        return sources
    return [source for source, ends in zip(sources, fixed, strict=True) if ends is None]


def _clips_pool(node: fx.Node) -> bool:
    """Say whether a node is an activation that a runtime folds into a pool on one grid."""
    source = first_input(node) if is_clip(node) else None
    return isinstance(source, fx.Node) and moves_values(source) and folds_activation(source)
