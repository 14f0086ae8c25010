"""Layers that step through time in one operator."""

import math
from dataclasses import dataclass
from typing import Any

from torch import fx

from edgedl.compress.graph.operators.operator import AxesOf, Operator, Product, View, aten
from edgedl.compress.graph.sizes import of_one_sample


@dataclass(frozen=True)
class Recurrent(View):
    """A recurrent layer over [N, T, C] or [T, N, C].

    Attributes:
        hx: the first states: one node, or one for each kind.
        params: weights [gates * hidden, ...] and biases, layer by layer.
    """

    input: fx.Node
    hx: Any
    params: list[fx.Node]


def _macs(of: AxesOf, node: fx.Node) -> list[Product]:
    view = Recurrent.of(node)
    steps = of_one_sample(math.prod(a.size for a in of(view.input)[:-1]))
    weights = [of(p) for p in view.params]
    return [Product(tuple(weight), steps) for weight in weights if len(weight) > 1]


ROWS = tuple(
    Operator(overloads, training="train", macs=_macs)
    for overloads in (
        (aten.lstm.input,),
        (aten.gru.input,),
        (aten.rnn_tanh.input, aten.rnn_relu.input),
    )
)
