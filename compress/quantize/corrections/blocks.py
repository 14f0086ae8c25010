"""Divide a network into blocks, each reached by a single value."""

import operator
from collections.abc import Collection
from dataclasses import dataclass

from torch import fx

from edgedl.compress.encodings.placement import fused_activation
from edgedl.compress.graph.edit import output_nodes


@dataclass(frozen=True)
class Block:
    """Operators in a row.

    Attributes:
        nodes: the operators, in the order they run.
        layers: those of them whose weight can be changed.
        gives: values that operators behind the block read, or that the network gives.
    """

    nodes: tuple[fx.Node, ...]
    layers: tuple[fx.Node, ...]
    gives: tuple[fx.Node, ...]


def find_blocks(graph: fx.GraphModule, layers: Collection[fx.Node], fewest: int) -> list[Block]:
    """Return the blocks of a graph, which together have all its operators.

    A block ends at a value that is all that the operators behind it read, as behind a residual sum,
    once it has enough layers. The last block may have fewer. Inside a residual branch, and in a
    network that carries several values all the way, no block ends.

    Args:
        graph: canonical float graph.
        layers: operators whose weight can be changed.
        fewest: layers of a block.
    """
    given = set(output_nodes(graph))
    last = _last_readers(graph)
    blocks: list[Block] = []
    nodes: list[fx.Node] = []
    read_later: set[fx.Node] = set()
    for node in graph.graph.nodes:
        if node.op in ("get_attr", "output"):
            continue
        if node.op != "placeholder":
            nodes.append(node)
        read_later = {v for v in read_later | {node} if last.get(v) not in (None, node)}
        enough = sum(n in layers for n in nodes) >= fewest
        if enough and read_later == {node} and _can_end(node):
            blocks.append(_block(nodes, layers, read_later | given))
            nodes = []
    if nodes:
        blocks.append(_block(nodes, layers, given))
    return blocks


def _can_end(node: fx.Node) -> bool:
    """Say whether a block may end at an operator: it gives one tensor, and keeps its activation."""
    several = any(user.target is operator.getitem for user in node.users)
    return not several and fused_activation(node) is None


def _block(nodes: list[fx.Node], layers: Collection[fx.Node], wanted: set[fx.Node]) -> Block:
    return Block(
        tuple(nodes),
        tuple(n for n in nodes if n in layers),
        tuple(n for n in nodes if n in wanted),
    )


def _last_readers(graph: fx.GraphModule) -> dict[fx.Node, fx.Node]:
    """Return, for every value that operators read, the last of them; not the output."""
    last: dict[fx.Node, fx.Node] = {}
    for node in graph.graph.nodes:
        if node.op != "output":
            for value in node.all_input_nodes:
                last[value] = node
    return last
