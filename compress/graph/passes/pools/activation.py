"""Activations behind max pools: people write ``relu(max_pool(conv(x)))`` either way."""

from torch import fx

from edgedl.compress.graph.operators.operator import first_input
from edgedl.compress.graph.operators.pooling import MAX_POOLS
from edgedl.compress.graph.operators.table import folds_activation, is_clip, row_of
from edgedl.compress.graph.passes.fold.batch_norm import FoldBatchNorm
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.values import record_value, value_of


class ActivateBeforePool(Pass):
    """Move an activation from behind a max pool to the operator that it can be folded into.

    The largest value stays the largest.

    Before: ``relu(max_pool2d(conv2d(x)))``. After: ``max_pool2d(relu(conv2d(x)))``.
    """

    requires = (FoldBatchNorm,)

    def looks_at(self, node: fx.Node) -> bool:
        """Say whether a node is an activation that runtimes fold."""
        return is_clip(node)

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Move one activation."""
        pool = first_input(node)
        if not isinstance(pool, fx.Node) or row_of(pool) not in MAX_POOLS or len(pool.users) > 1:
            return None
        producer = first_input(pool)
        if not isinstance(producer, fx.Node) or len(producer.users) > 1:
            return None
        if not folds_activation(producer):
            return None
        with module.graph.inserting_before(pool):
            moved = module.graph.node_copy(node, lambda _: producer)
        record_value(moved, value_of(producer))
        pool.replace_input_with(producer, moved)
        moved.name = node.name
        return pool
