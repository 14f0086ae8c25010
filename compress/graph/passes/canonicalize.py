"""Rewrite a traced graph into the few operators that the quantizer reasons about.

Every rewrite is exact up to float rounding; ``trace`` checks that.
"""

from collections.abc import Callable
from typing import Any

from torch import fx

from edgedl.compress.graph.edit import (
    finish,
    insert_call,
)
from edgedl.compress.graph.operators.table import (
    FUSED_ACTIVATIONS,
    MAX_POOLS,
    TRANSPOSED,
    aten,
    folds_activation,
)
from edgedl.compress.graph.passes.constants import store_computed
from edgedl.compress.graph.passes.fold import affine_to_depthwise, fold_affine, fold_batch_norm
from edgedl.compress.graph.passes.open_operators import (
    open_attention,
    open_masked_scores,
    open_silu,
    open_split,
    open_unbind,
)
from edgedl.compress.graph.passes.products import open_products
from edgedl.compress.graph.passes.synonyms import use_one_name
from edgedl.compress.graph.passes.transposed_convolution import (
    crop_transposed_convolution,
    open_transposed_convolution,
    series_as_pictures,
)


def canonicalize(module: fx.GraphModule) -> fx.GraphModule:
    """Apply every rewrite in place and return the module."""
    use_one_name(module)
    for node in module.graph.find_nodes(op="call_function", target=aten.conv_transpose1d.default):
        series_as_pictures(module, node)
    open_products(module)
    store_computed(module)
    for node in list(module.graph.nodes):
        if node.target is aten.adaptive_avg_pool2d.default and _is_global_pool(node):
            pool_to_mean(module, node, keepdim=True)
        elif node.target is aten.mean.dim and _is_spatial_mean(node):
            pool_to_mean(module, node, keepdim=False)
        elif node.target in REWRITES:
            REWRITES[node.target](module, node)
    # Only now: a batch norm behind one is folded into its weight, and reads it no more.
    module.graph.eliminate_dead_code()
    for node in list(module.graph.nodes):
        if node.target in FUSED_ACTIVATIONS:
            activate_before_pool(module, node)
    for node in module.graph.find_nodes(op="call_function", target=TRANSPOSED):
        if not open_transposed_convolution(module, node):
            crop_transposed_convolution(module, node)
    return finish(module)


def pool_to_mean(module: fx.GraphModule, node: fx.Node, keepdim: bool) -> None:
    """Write a global average pool or spatial mean as a mean that keeps its dimensions.

    Runtimes have an int8 kernel for that form; without ``keepdim`` a flatten follows it.
    """
    mean = insert_call(module.graph, node, aten.mean.dim, node.args[0], [2, 3], True)
    result = mean
    if not keepdim:
        result = insert_call(module.graph, node, aten.flatten.using_ints, mean, 1)
    result.meta["val"] = node.meta["val"]
    mean.meta["val"] = node.meta["val"] if keepdim else node.meta["val"][:, :, None, None]
    node.replace_all_uses_with(result)


def activate_before_pool(module: fx.GraphModule, node: fx.Node) -> None:
    """Move an activation from behind a max pool to the operator that it can be folded into.

    The largest value stays the largest: people write ``relu(max_pool(conv(x)))`` either way.
    """
    pool = node.args[0]
    if not isinstance(pool, fx.Node) or pool.target not in MAX_POOLS or len(pool.users) > 1:
        return
    producer = pool.args[0]
    if isinstance(producer, fx.Node) and folds_activation(producer) and len(producer.users) == 1:
        with module.graph.inserting_before(pool):
            moved = module.graph.node_copy(node, lambda _: producer)
        moved.meta["val"] = producer.meta["val"]
        pool.replace_input_with(producer, moved)
        node.replace_all_uses_with(pool)
        module.graph.erase_node(node)
        moved.name = node.name


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


REWRITES: dict[Any, Callable[[fx.GraphModule, fx.Node], None]] = {
    aten.batch_norm.default: fold_batch_norm,
    aten.mul.Tensor: affine_to_depthwise,
    aten.add.Tensor: fold_affine,
    aten.silu.default: open_silu,
    aten.silu_.default: open_silu,
    aten.scaled_dot_product_attention.default: open_attention,
    aten.masked_fill.Scalar: open_masked_scores,
    aten.masked_fill.Tensor: open_masked_scores,
    aten.where.self: open_masked_scores,
    aten.where.ScalarSelf: open_masked_scores,
    aten.where.ScalarOther: open_masked_scores,
    aten.split.Tensor: open_split,
    aten.split_with_sizes.default: open_split,
    aten.chunk.default: open_split,
    aten.tensor_split.sections: open_split,
    aten.unbind.int: open_unbind,
}
