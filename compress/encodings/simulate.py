"""Run a float graph as if it were quantized, node by node; quick, and open to questions.

``emit`` writes a graph for export. This one computes the same values without writing anything:
what searches for better weights, ranges or precisions ask thousands of times.
"""

import copy
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from edgedl.compress.encodings.affine import Affine, grid_of
from edgedl.compress.encodings.encodings import (
    Encodings,
    per_channel,
    quantize_weight,
    round_bias,
    weight_scales,
)
from edgedl.compress.encodings.placement import place, quantized_nodes
from edgedl.compress.graph.edit import get_tensor
from edgedl.compress.graph.operators.operator import Weighted, first_input
from edgedl.compress.graph.operators.table import is_weighted, row_of
from edgedl.compress.subject.outputs import as_tuple
from edgedl.compress.targets.target import REFERENCE, Target


class Simulation:
    """A canonical float graph with its table, computing as one target would.

    Attributes:
        graph: the float graph.
        weighted: operators whose weight is quantized, in the order they run.
        scales: step of each of their weights, float32 [C_out].
        weight_qmax: largest integer of a weight.
    """

    def __init__(
        self, graph: fx.GraphModule, encodings: Encodings, target: Target = REFERENCE
    ) -> None:
        """Quantize every weight; the graph stays as it is."""
        self.graph = graph
        self._encodings, self._target = encodings, target
        chosen = quantized_nodes(graph.graph, encodings, target)
        self._placement = place(graph.graph, encodings, target)
        self._affines = {n: grid_of(encodings, n.name, target) for n in self._placement}
        self._rounds_bias = target.integer_biases
        self.weighted = [n for n in graph.graph.nodes if is_weighted(n) and n in chosen]
        self.weight_qmax = encodings.weight_qmax
        self.scales = {
            n: weight_scales(encodings.weights[Weighted.of(n).weight_path], self.weight_qmax)
            for n in self.weighted
        }
        self._readers = Counter(Weighted.of(n).weight_path for n in self.weighted)
        self._parameters: dict[fx.Node, tuple[Tensor, Tensor | None]] = {}
        for node in self.weighted:
            self.set_weight(node, self.weight(node), self.bias(node))

    def weight(self, node: fx.Node) -> Tensor:
        """Return the float weight of an operator."""
        return get_tensor(self.graph, Weighted.of(node).weight_path)

    def shares_weight(self, node: fx.Node) -> bool:
        """Say whether another operator reads the same weight."""
        return self._readers[Weighted.of(node).weight_path] > 1

    def bias(self, node: fx.Node) -> Tensor | None:
        """Return the float bias of an operator, if it has one."""
        path = Weighted.of(node).bias_path
        return None if path is None else get_tensor(self.graph, path)

    def set_weight(self, node: fx.Node, weight: Tensor, bias: Tensor | None) -> None:
        """Compute with another weight and bias from now on, rounded to their grids."""
        scales = self.scales[node]
        axis = row_of(node).weight_axis
        step = per_channel(scales, axis, weight.ndim)
        rounded = quantize_weight(weight, scales, axis, self.weight_qmax) * step
        affine = self.affine(Weighted.of(node).input, node)
        if bias is not None and affine is not None and self._rounds_bias:
            bias = round_bias(bias, scales, affine.scale)
        self._parameters[node] = rounded, bias

    def take_weight(self, node: fx.Node, weight: Tensor) -> None:
        """Compute with a weight as it is from now on, on its grid or not; the bias stays."""
        self._parameters[node] = weight, self._parameters[node][1]

    def rounded(self, node: fx.Node) -> tuple[Tensor, Tensor | None]:
        """Return the weight and bias an operator computes with, on their grids."""
        return self._parameters[node]

    def keeping_float(self, names: Collection[str]) -> "Simulation":
        """Return a simulation with more operators in float, as the files would hold them.

        It shares the weights of this one as they are now.
        """
        other = copy.copy(self)
        other._encodings = replace(
            self._encodings, float_nodes=self._encodings.float_nodes | frozenset(names)
        )
        chosen = quantized_nodes(self.graph.graph, other._encodings, self._target)
        other._placement = place(self.graph.graph, other._encodings, self._target)
        other._affines = {
            n: grid_of(self._encodings, n.name, self._target) for n in other._placement
        }
        other.weighted = [node for node in self.weighted if node in chosen]
        other.scales = {node: self.scales[node] for node in other.weighted}
        other._parameters = {node: self._parameters[node] for node in other.weighted}
        return other

    def affine(self, value: Any, user: fx.Node) -> Affine | None:
        """Return the grid on which ``user`` reads ``value``; None where it reads floats."""
        if isinstance(value, fx.Node) and user in self._placement.get(value, ()):
            return self._affines[value]
        return None

    def compute(
        self,
        node: fx.Node,
        values: dict[fx.Node, Any],
        active: Collection[fx.Node] | None = None,
    ) -> Any:
        """Compute one node from the values before it.

        Args:
            node: a node of the graph, other than an input or a constant.
            values: what the nodes before it computed.
            active: the nodes whose value, and the operators whose weight, is quantized; all if
                None.
        """
        rounded: dict[fx.Node | None, Tensor] = {}
        if node in self._parameters and (active is None or node in active):
            layer, (weight, bias) = Weighted.of(node), self._parameters[node]
            rounded = {layer.weight: weight}
            if bias is not None:
                rounded[layer.bias] = bias

        def read(argument: fx.Node) -> Any:
            if argument in rounded:
                return rounded[argument]
            if argument.op == "get_attr":
                value = get_tensor(self.graph, str(argument.target))
            else:
                value = values[argument]
            affine = self.affine(argument, node)
            if affine is None or (active is not None and argument not in active):
                return value
            return fake_quantize(value, affine)

        if node.op == "output":
            return as_tuple(fx.map_arg(first_input(node), read))
        function: Any = node.target
        return function(*fx.map_arg(node.args, read), **fx.map_arg(node.kwargs, read))

    @torch.no_grad()
    def __call__(self, *inputs: Tensor, active: Collection[fx.Node] | None = None) -> Any:
        """Run the graph on a batch; see ``compute`` for ``active``."""
        values: dict[fx.Node, Any] = {}
        feed = iter(inputs)
        last = last_users(self.graph.graph)
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(feed)
            elif node.op != "get_attr":
                values[node] = self.compute(node, values, active)
            for done in last.get(node, ()):
                values.pop(done, None)
        return values[node]


def fake_quantize(x: Tensor, affine: Affine) -> Tensor:
    """Round a float tensor to a grid and back, as a pair of ``emit`` does.

    Gradients pass inside the grid's ends, and are zero beyond them.
    """
    if x.requires_grad:
        straight: Tensor = torch.fake_quantize_per_tensor_affine(
            x, affine.scale, affine.zero_point, affine.qmin, affine.qmax
        )
        return straight
    integers = torch.mul(x, 1.0 / affine.scale).round_()
    integers.clamp_(affine.qmin - affine.zero_point, affine.qmax - affine.zero_point)
    return integers.mul_(affine.scale)


def last_users(graph: fx.Graph) -> dict[fx.Node, list[fx.Node]]:
    """Return, for every node, the values that nothing after it reads."""
    last: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        for value in node.all_input_nodes:
            last[value] = node
    found: dict[fx.Node, list[fx.Node]] = {}
    for value, user in last.items():
        found.setdefault(user, []).append(value)
    return found
