"""Averages over a whole picture."""

from torch import fx

from edgedl.compress.graph.edit import inserter, tensor_of
from edgedl.compress.graph.operators.operator import argument, aten, first_input
from edgedl.compress.graph.operators.reduction import reduced_axes
from edgedl.compress.graph.passes.graph_pass import Pass


class GlobalPoolAsMean(Pass):
    """Write a global average pool or spatial mean as a mean that keeps its dimensions.

    Runtimes have an int8 kernel for that form; without ``keepdim`` a flatten follows it.

    Before: ``adaptive_avg_pool2d(x, 1)``, ``mean(x, [2, 3])``.
    After: ``mean(x, [2, 3], True)``, ``flatten(mean(x, [2, 3], True), 1)``.
    """

    operators = frozenset({aten.adaptive_avg_pool2d.default, aten.mean.dim})

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Replace one pool or mean of [N, C, H, W] over H and W."""
        source, insert = first_input(node), inserter(module, node)
        if len(tensor_of(module, source).shape) != 4:
            return None
        if node.target is aten.adaptive_avg_pool2d.default:
            if argument(node, "output_size") not in ([1, 1], (1, 1), 1, [1]):
                return None
            return insert(aten.mean.dim, source, [2, 3], True)
        if reduced_axes(node, 4) != {2, 3} or argument(node, "keepdim"):
            return None
        return insert(aten.flatten.using_ints, insert(aten.mean.dim, source, [2, 3], True), 1)
