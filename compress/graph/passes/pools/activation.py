"""Activations behind max pools: people write ``relu(max_pool(conv(x)))`` either way."""

from torch import fx

from edgedl.compress.graph.operators.table import FUSED_ACTIVATIONS, MAX_POOLS, folds_activation
from edgedl.compress.graph.passes.fold.batch_norm import FoldBatchNorm
from edgedl.compress.graph.passes.graph_pass import Pass


class ActivateBeforePool(Pass):
    """Move an activation from behind a max pool to the operator that it can be folded into.

    The largest value stays the largest.

    Before: ``relu(max_pool2d(conv2d(x)))``. After: ``max_pool2d(relu(conv2d(x)))``.
    """

    requires = (FoldBatchNorm,)
    operators = FUSED_ACTIVATIONS

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Move one activation."""
        pool = node.args[0]
        if not isinstance(pool, fx.Node) or pool.target not in MAX_POOLS or len(pool.users) > 1:
            return None
        producer = pool.args[0]
        if not isinstance(producer, fx.Node) or len(producer.users) > 1:
            return None
        if not folds_activation(producer):
            return None
        with module.graph.inserting_before(pool):
            moved = module.graph.node_copy(node, lambda _: producer)
        moved.meta["val"] = producer.meta["val"]
        pool.replace_input_with(producer, moved)
        moved.name = node.name
        return pool
