"""The axes of every tensor of a graph, joined as its operators join them."""

import operator
from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx

from edgedl.compress.graph.cuts.axes import Axis, unify
from edgedl.compress.graph.cuts.axis_rules import rule_of
from edgedl.compress.graph.edit import input_nodes, output_nodes
from edgedl.compress.graph.layers import layer_name
from edgedl.compress.graph.sizes import size_of


class TensorAxes:
    """Axes of values, parameters and buffers; those that are one axis have one root.

    Attributes:
        graph: whose tensors they are.
        values: node -> its axes; a list of lists for an operator with several results.
        tensors: path of a parameter or buffer -> its axes.
        unknown: operators that have no rule, whose axes are frozen: node -> why.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        """Join all axes of a graph of ``export_graph``, whose nodes know their shapes."""
        self.graph = graph
        self.values: dict[fx.Node, Any] = {}
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
        """Return why channels of stored tensors stay, where an operator has no rule."""
        frozen = {
            leaf.frozen for own in self.tensors.values() for axis in own for leaf in axis.leaves()
        }
        return tuple(r for r in dict.fromkeys(self.unknown.values()) if r in frozen)

    def of(self, argument: Any) -> list[Axis]:
        """Return the axes of an operator's argument; a number has none."""
        found = self.values.get(argument) if isinstance(argument, fx.Node) else None
        return [] if found is None else list(found)

    def results(self, argument: Any) -> list[list[Axis]]:
        """Return the axes of each result of an operator that has several, or of its only one."""
        found: Any = self.of(argument)
        return found if found and isinstance(found[0], list) else [found]

    def join(self, where: fx.Node, left: Sequence[Axis], right: Sequence[Axis]) -> None:
        """Make axes the same, pair by pair."""
        for a, b in zip(left, right, strict=True):
            unify(a, b, f"'{layer_name(where)}'")

    def join_broadcast(self, where: fx.Node, left: Sequence[Axis], right: Sequence[Axis]) -> None:
        """Make axes the same from the last backwards, but for those that are repeated."""
        for a, b in zip(reversed(left), reversed(right), strict=False):
            if a.size == b.size:
                unify(a, b, f"'{layer_name(where)}'")

    def freeze(self, groups: Sequence[Any], reason: str) -> None:
        """Keep every position of some axes, or of lists of axes."""
        for item in groups:
            if isinstance(item, Axis):
                item.freeze(reason)
            else:
                self.freeze(item, reason)

    def _stored(self, tensor: Tensor) -> list[Axis]:
        """Return the axes of a stored tensor; one that two paths share has the same at both."""
        if id(tensor) not in self._shared:
            self._shared[id(tensor)] = [Axis(size) for size in tensor.shape]
        return self._shared[id(tensor)]

    def _add(self, node: fx.Node) -> None:
        if node.op == "get_attr":
            path = str(node.target)
            if path not in self.tensors:
                self.tensors[path] = self._stored(operator.attrgetter(path)(self.graph))
            self.values[node] = self.tensors[path]
            return
        made = _new_axes(node.meta.get("val"))
        if made is None:
            return
        self.values[node] = made
        if node.op == "placeholder":
            return
        rule = rule_of(node.target)
        if rule is None:
            layer = layer_name(node)
            reason = f"pruning does not know the operator {_operator(node)}"
            self.unknown[node] = reason = f"{reason} of '{layer}'" if layer else reason
            self.freeze([made, *(self.of(a) for a in node.all_input_nodes)], reason)
        else:
            rule(self, node)


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


def _operator(node: fx.Node) -> str:
    return str(node.target).removesuffix(".default")
