"""The layers of a quantized network, as a user names and switches them.

A layer is an operator with its weight, its fused activation, and the tensor that they write,
however that is moved (reshape, max pool, ...) before somebody reads it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx

from edgedl.compress.encodings.encodings import Encodings
from edgedl.compress.encodings.placement import fused_activation, quantized_nodes
from edgedl.compress.graph.edit import is_constant
from edgedl.compress.graph.layers import find_layers, layer_name
from edgedl.compress.graph.operators.operator import Weighted, first_input
from edgedl.compress.graph.operators.table import (
    is_quantizable,
    is_weighted,
    moves_values,
)
from edgedl.compress.graph.work import macs_of

INPUT = "input"


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer that computes in int8, or the network's inputs, which are rounded together.

    Attributes:
        name: what ``keep_float`` takes for this layer alone: the path of its module where that
            holds nothing else, else the name of its node; "input" for the network's inputs.
        module: path of the module that it comes from, "" for the network itself.
        operator: for example "conv2d".
        node: the operator; None for the inputs.
        values: nodes on the grid of the tensor it writes.
        constants: nodes of constant operands that are quantized with it.
        readers: names of the nodes of the int8 layers that read its tensor.
        macs: multiply-accumulates for one sample.
    """

    name: str
    module: str
    operator: str
    node: fx.Node | None
    values: frozenset[fx.Node]
    constants: frozenset[fx.Node]
    readers: frozenset[str]
    macs: int

    @property
    def nodes(self) -> frozenset[fx.Node]:
        """All that is switched on and off with the layer."""
        return self.values | self.constants


def quantized_layers(graph: fx.GraphModule, encodings: Encodings) -> list[QuantizedLayer]:
    """Return the layers that compute in int8, in the order they run, the inputs first."""
    heads = _heads(graph.graph, encodings)
    members: dict[fx.Node | None, set[fx.Node]] = {}
    for node, head in heads.items():
        members.setdefault(head, set()).add(node)
    # What moves values heads a layer where it reads none: an embedding.
    operators = [
        n
        for n in graph.graph.nodes
        if is_quantizable(n) and (not moves_values(n) or heads.get(n) is n)
    ]
    return [_layer(graph, head, nodes, heads, operators) for head, nodes in members.items()]


def _heads(graph: fx.Graph, encodings: Encodings) -> dict[fx.Node, fx.Node | None]:
    """Return every int8 node with the operator of its layer; None for the network's inputs."""
    chosen = quantized_nodes(graph, encodings)
    heads: dict[fx.Node, fx.Node | None] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            if any(user in chosen for user in node.users):
                heads[node] = None
        elif node in chosen:
            source = first_input(node)
            follows = moves_values(node) or (
                isinstance(source, fx.Node) and fused_activation(source) is node
            )
            heads[node] = heads[source] if follows and source in heads else node
    return heads


def _layer(
    graph: fx.GraphModule,
    head: fx.Node | None,
    values: set[fx.Node],
    heads: dict[fx.Node, fx.Node | None],
    operators: Sequence[fx.Node],
) -> QuantizedLayer:
    users = [heads.get(user) for node in values for user in node.users]
    readers = frozenset(n.name for n in users if n is not None and n is not head)
    if head is None:
        return QuantizedLayer(INPUT, "", INPUT, None, frozenset(values), frozenset(), readers, 0)
    constants = {n for n in head.all_input_nodes if is_constant(n)}
    if is_weighted(head):
        layer = Weighted.of(head)
        constants -= {layer.weight, layer.bias}
    return QuantizedLayer(
        _name(head, values, operators),
        layer_name(head),
        str(head.target).split(".")[1],
        head,
        frozenset(values),
        frozenset(constants),
        readers,
        macs_of(graph, head),
    )


def _name(head: fx.Node, values: set[fx.Node], operators: Sequence[fx.Node]) -> str:
    path = layer_name(head)
    if path and find_layers(operators, [path]) <= values:
        return path
    return head.name
