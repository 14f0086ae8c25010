"""SiLU, also called swish."""

from torch import fx

from edgedl.compress.graph.edit import inserter
from edgedl.compress.graph.operators.operator import aten, first_input
from edgedl.compress.graph.passes.graph_pass import Pass


class OpenSilu(Pass):
    """Write SiLU as what it is: runtimes have int8 kernels for a sigmoid and a product.

    Before: ``silu(x)``. After: ``mul(x, sigmoid(x))``.

    Source: Elfwing, Uchibe, Doya, "Sigmoid-weighted linear units", 2018, equation 6.
    """

    operators = frozenset({aten.silu.default, aten.silu_.default})
    gone = operators

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Write one as a product; written in place it would still run, so it goes."""
        x, insert = first_input(node), inserter(module, node)
        return insert(aten.mul.Tensor, x, insert(aten.sigmoid.default, x))
