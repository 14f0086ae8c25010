"""Averages over a whole picture."""

from torch import fx

from edgedl.compress.graph.edit import insert_call
from edgedl.compress.graph.operators.table import aten
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
        keepdim = node.target is aten.adaptive_avg_pool2d.default
        if not (_is_global_pool(node) if keepdim else _is_spatial_mean(node)):
            return None
        mean = insert_call(module.graph, node, aten.mean.dim, node.args[0], [2, 3], True)
        result = mean
        if not keepdim:
            result = insert_call(module.graph, node, aten.flatten.using_ints, mean, 1)
        result.meta["val"] = node.meta["val"]
        mean.meta["val"] = node.meta["val"] if keepdim else node.meta["val"][:, :, None, None]
        return result


def _is_spatial_mean(node: fx.Node) -> bool:
    """Say whether a mean of [N, C, H, W] runs over H and W and drops them."""
    source = node.args[0]
    if not isinstance(source, fx.Node) or source.meta["val"].ndim != 4:
        return False
    axes = node.args[1] if isinstance(node.args[1], (list, tuple)) else [node.args[1]]
    keepdim = len(node.args) > 2 and bool(node.args[2])
    return sorted(int(a) % 4 for a in axes) == [2, 3] and not keepdim  # type: ignore[arg-type]


def _is_global_pool(node: fx.Node) -> bool:
    """Say whether an adaptive pool reduces [N, C, H, W] to one value per channel."""
    return node.meta["val"].ndim == 4 and node.args[1] in ([1, 1], (1, 1), 1, [1])
