"""Layers that step through time in one operator."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import fx

from edgedl.compress.graph.axes import Axis
from edgedl.compress.graph.joined_axes import JoinedAxes
from edgedl.compress.graph.operators.operator import AxesOf, Operator, Product, View, aten
from edgedl.compress.graph.sizes import of_one_sample


@dataclass(frozen=True)
class Recurrent(View):
    """A recurrent layer over [N, T, C] or [T, N, C].

    Attributes:
        hx: the first states: one node, or one for each kind.
        params: weights [gates * hidden, ...] and biases, layer by layer, and in a layer one
            direction after the other.
    """

    input: fx.Node
    hx: Any
    params: list[fx.Node]
    has_biases: bool
    num_layers: int
    bidirectional: bool
    batch_first: bool

    @property
    def directions(self) -> int:
        """How often it goes through time."""
        return 2 if self.bidirectional else 1

    @property
    def states(self) -> list[fx.Node]:
        """The first states [layers * directions, N, hidden], one for each kind."""
        return list(self.hx) if isinstance(self.hx, (list, tuple)) else [self.hx]

    def cells(self) -> Iterator[tuple[fx.Node, ...]]:
        """Yield the parameters of each direction of each layer."""
        count = len(self.params) // (self.num_layers * self.directions)
        for start in range(0, len(self.params), count):
            yield tuple(self.params[start : start + count])


def _join_axes(axes: JoinedAxes, node: fx.Node) -> None:
    """Hidden units are the same in all layers and directions: the first states are one tensor.

    A unit without weights stays at the zero that it begins with.
    """
    view = Recurrent.of(node)
    x, results = axes.of(view.input), axes.results(node)
    hidden = Axis(axes.of(view.states[0])[-1].size)
    if len(next(view.cells())) != (4 if view.has_biases else 2):
        read = [axes.of(n) for n in node.all_input_nodes]
        axes.freeze([*read, *results], f"'{node.name}' projects its states")
        return
    reads = x[-1]
    for number, cell in enumerate(view.cells(), 1):
        _join_cell(axes, node, cell, reads, hidden)
        if number % view.directions == 0:
            reads = Axis.sum([hidden] * view.directions)
    output, *last = results
    axes.join(node, x[:-1], output[:-1])
    axes.join(node, [reads], output[-1:])
    samples = x[0] if view.batch_first else x[1]
    for state in (*map(axes.of, view.states), *last):
        axes.freeze(state[:1], f"'{node.name}' has a position for each layer")
        axes.join(node, state[1:], [samples, hidden])
    axes.freeze([x[1] if view.batch_first else x[0]], f"'{node.name}' steps through it")


def _join_cell(
    axes: JoinedAxes, node: fx.Node, cell: tuple[fx.Node, ...], reads: Axis, hidden: Axis
) -> None:
    """Parameters [gates * hidden, ...]: weights of what is read and of the state, biases."""
    of_input, of_state, *biases = map(axes.of, cell)
    gates = Axis(of_input[0].size // hidden.size, f"'{node.name}' has gates")
    for own in (of_input, of_state, *biases):
        axes.join(node, own[:1], [Axis.product([gates, hidden])])
    axes.join(node, [of_input[1], of_state[1]], [reads, hidden])


def _macs(of: AxesOf, node: fx.Node) -> list[Product]:
    view = Recurrent.of(node)
    steps = of_one_sample(math.prod(a.size for a in of(view.input)[:-1]))
    weights = [of(p) for p in view.params]
    return [Product(tuple(weight), steps) for weight in weights if len(weight) > 1]


ROWS = tuple(
    Operator(overloads, training="train", macs=_macs, join_axes=_join_axes)
    for overloads in (
        (aten.lstm.input,),
        (aten.gru.input,),
        (aten.rnn_tanh.input, aten.rnn_relu.input),
    )
)
