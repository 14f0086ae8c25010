"""The axes of every tensor of a graph, joined as its operators join them."""

import operator
from collections import Counter
from typing import Any

from torch import Tensor, fx

from edgedl.compress.graph.axes import Axis
from edgedl.compress.graph.edit import input_nodes, output_nodes
from edgedl.compress.graph.joined_axes import JoinedAxes
from edgedl.compress.graph.layers import layer_name
from edgedl.compress.graph.operators.table import row_of
from edgedl.compress.graph.sizes import size_of
from edgedl.compress.graph.values import value_of


class TensorAxes(JoinedAxes):
    """Axes of values, parameters and buffers; those that are one axis have one root.

    Attributes:
        graph: whose tensors they are.
        tensors: path of a parameter or buffer -> its axes.
        unknown: operators that no channel goes through, whose axes are frozen: node -> why.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        """Join all axes of a graph of ``export_graph``, whose nodes know their shapes."""
        super().__init__()
        self.graph = graph
        self.tensors: dict[str, list[Axis]] = {}
        self.unknown: dict[fx.Node, str] = {}
        self._shared: dict[int, list[Axis]] = {}
        for node in graph.graph.nodes:
            self._add(node)
        for node in input_nodes(graph):
            self.freeze([self.values[node]], f"'{node.name}' is an input of the network")
        for node in output_nodes(graph):
            self.freeze([self.values[node]], f"'{node.name}' is an output of the network")

    def in_the_way(self) -> tuple[str, ...]:
        """Return why channels of stored tensors stay, where no channel goes through an operator.

        An axis that only one tensor has is nobody's channels: a position that is learned.
        """
        places = Counter(
            leaf
            for own in self.tensors.values()
            for axis in own
            for leaf in dict.fromkeys(axis.leaves())
        )
        frozen = {leaf.frozen for leaf in places}
        shared = {leaf.frozen for leaf, count in places.items() if count > 1}
        unknown = [reason for reason in self.unknown.values() if reason in frozen]
        return tuple(dict.fromkeys([*unknown, *(r for r in self.mixing.values() if r in shared)]))

    def _add(self, node: fx.Node) -> None:
        if node.op == "get_attr":
            path = str(node.target)
            tensor = operator.attrgetter(path)(self.graph)
            if not isinstance(tensor, Tensor):
                # The code of a block, such as one without gradients.
                return
            # One that two paths share has the same axes at both.
            own = self._shared.setdefault(id(tensor), [Axis(size) for size in tensor.shape])
            self.values[node] = self.tensors[path] = own
            return
        made = _new_axes(value_of(node))
        if made is not None:
            self.values[node] = made
        if node.op != "call_function":
            return
        join_axes = row_of(node).join_axes
        if join_axes is not None:
            self.forget()
            join_axes(self, node)
            if made is not None:
                self.pin_unsaid(node)
        elif made is not None or node.users or _writes(node):
            self._pin(node)

    def _pin(self, node: fx.Node) -> None:
        """Keep every channel that an operator reads or returns."""
        pinned = [own for n in (node, *node.all_input_nodes) if (own := self.of(n))]
        if pinned:
            layer = layer_name(node)
            name = str(node.target).removesuffix(".default")
            reason = f"pruning does not know the operator {name}"
            self.unknown[node] = reason = f"{reason} of '{layer}'" if layer else reason
            self.freeze(pinned, reason)


def _new_axes(value: Any) -> Any:
    if isinstance(value, Tensor):
        return [Axis(size_of(d), _reason_to_stay(d)) for d in value.shape]
    if isinstance(value, (list, tuple)):
        return [_new_axes(item) for item in value]
    return None


def _reason_to_stay(size: Any) -> str:
    """Return why an axis stays whole by its size; one that the batch is only a factor of may not.

    The other factors can be channels: heads that are folded into the batch.
    """
    return "" if isinstance(size, int) or size.node.expr.is_Mul else "its size is free"


def _writes(node: fx.Node) -> bool:
    """Say whether an operator changes what it reads."""
    return bool(getattr(getattr(node.target, "_schema", None), "is_mutable", False))
