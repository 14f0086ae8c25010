"""What an operator of a graph computes, in multiply-accumulates."""

import math

from torch import fx

from edgedl.compress.graph.axes import Axis
from edgedl.compress.graph.edit import tensor_of
from edgedl.compress.graph.operators.table import row_of
from edgedl.compress.graph.sizes import size_of


def macs_of(graph: fx.GraphModule, node: fx.Node) -> int:
    """Return an operator's multiply-accumulates for one sample."""

    def axes_of(argument: fx.Node) -> list[Axis]:
        return [Axis(size_of(size)) for size in tensor_of(graph, argument).shape]

    products = row_of(node).macs(axes_of, node)
    return sum(p.places * math.prod(a.size for a in p.axes) // p.samples for p in products)
