"""Multiply-accumulates of a network, for any widths of its channels."""

import math

from edgedl.compress.graph.cuts.tensor_axes import TensorAxes
from edgedl.compress.graph.cuts.widths import Counts, new_size
from edgedl.compress.graph.operators.table import row_of


class MacCounter:
    """Multiply-accumulates of one sample's forward pass, for any widths.

    Those of convolutions, linear and recurrent layers, of products of two activations and of
    attention, wherever in their tensors the batch is.
    """

    def __init__(self, axes: TensorAxes) -> None:
        """Find the operators that multiply."""
        nodes = axes.graph.graph.nodes
        self._products = [p for node in nodes for p in row_of(node).macs(axes.of, node)]

    def count(self, widths: Counts) -> int:
        """Return the multiply-accumulates if some groups have other widths."""
        return sum(
            p.places * math.prod(new_size(a, widths) for a in p.axes) // p.samples
            for p in self._products
        )
