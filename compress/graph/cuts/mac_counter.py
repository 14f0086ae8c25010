"""Multiply-accumulates of a network, for any widths of its channels."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import fx

from edgedl.compress.graph.cuts.axes import Axis
from edgedl.compress.graph.cuts.axis_rules import axes_of_letters
from edgedl.compress.graph.cuts.tensor_axes import TensorAxes
from edgedl.compress.graph.cuts.widths import Counts, new_size
from edgedl.compress.graph.operators.table import (
    ADDED_PRODUCTS,
    ATTENTION,
    MATRIX_PRODUCTS,
    RECURRENT,
    TRANSPOSED,
    WEIGHTED,
    aten,
)
from edgedl.compress.graph.sizes import BATCH, of_one_sample, places_of


class _Term(NamedTuple):
    """A product of sizes: some axes', times the places, over the samples."""

    axes: tuple[Axis, ...]
    places: int = 1
    samples: int = 1


class MacCounter:
    """Multiply-accumulates of one sample's forward pass, for any widths.

    Those of convolutions, linear and recurrent layers, of products of two activations and of
    attention, wherever in their tensors the batch is.
    """

    def __init__(self, axes: TensorAxes) -> None:
        """Find the operators that multiply."""
        self._terms = [term for node in axes.graph.graph.nodes for term in _terms(axes, node)]

    def count(self, widths: Counts) -> int:
        """Return the multiply-accumulates if some groups have other widths."""
        return sum(
            t.places * math.prod(new_size(a, widths) for a in t.axes) // t.samples
            for t in self._terms
        )


def _terms(axes: TensorAxes, node: fx.Node) -> list[_Term]:
    if node.target in WEIGHTED or node.target is TRANSPOSED:
        return [_Term(tuple(axes.of(node.args[1])), places_of(node))]
    if node.target in MATRIX_PRODUCTS:
        return [_product([*axes.of(node), axes.of(node.args[0])[-1]])]
    if node.target in ADDED_PRODUCTS:
        return [_product([*axes.of(node), axes.of(node.args[1])[-1]])]
    if node.target is aten.einsum.default:
        letters = axes_of_letters(axes, node)
        return [_product(list(letters.values()))] if letters else []
    if node.target in ATTENTION:
        query, key = (axes.of(x) for x in node.args[:2])
        return [_product([*query, key[-2]]), _product([*axes.of(node), key[-2]])]
    if node.target in RECURRENT:
        sequence, parameters = node.args[0], node.args[2]
        steps = of_one_sample(math.prod(a.size for a in axes.of(sequence)[:-1]))
        weights = [axes.of(p) for p in parameters] if isinstance(parameters, (list, tuple)) else []
        return [_Term(tuple(weight), steps) for weight in weights if len(weight) > 1]
    return []


def _product(axes: Sequence[Axis]) -> _Term:
    return _Term(tuple(axes), samples=BATCH if math.prod(a.size for a in axes) % BATCH == 0 else 1)
