"""Rewrite a traced graph into the few operators that the quantizer reasons about.

Every rewrite is exact up to float rounding; ``trace`` checks that.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from edgedl.compress.graph.edit import (
    finish,
    get_tensor,
    insert_call,
    insert_constant,
    is_constant,
)
from edgedl.compress.graph.open_operators import (
    open_attention,
    open_silu,
    open_split,
    open_unbind,
)
from edgedl.compress.graph.operators import TRANSPOSED, WEIGHTED, aten, groups_of
from edgedl.compress.graph.transposed_convolution import (
    crop_transposed_convolution,
    open_transposed_convolution,
)


def canonicalize(module: fx.GraphModule) -> fx.GraphModule:
    """Apply every rewrite in place and return the module."""
    for node in list(module.graph.nodes):
        if node.target in (aten.dropout.default, aten.detach_.default, aten.alias.default):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
        elif node.target is aten.adaptive_avg_pool2d.default and _is_global_pool(node):
            pool_to_mean(module, node, keepdim=True)
        elif node.target is aten.mean.dim and _is_spatial_mean(node):
            pool_to_mean(module, node, keepdim=False)
        elif node.target in REWRITES:
            REWRITES[node.target](module, node)
    # Only now: a batch norm behind one is folded into its weight, and reads it no more.
    module.graph.eliminate_dead_code()
    for node in module.graph.find_nodes(op="call_function", target=TRANSPOSED):
        if not open_transposed_convolution(module, node):
            crop_transposed_convolution(module, node)
    return finish(module)


def fold_batch_norm(module: fx.GraphModule, node: fx.Node) -> None:
    """Fold an inference-mode batch norm into the convolution or linear before it.

    A batch norm without such an operator of its own becomes a 1x1 depthwise convolution (for
    [N, C, H, W]) or stays as it is.

    Source: Jacob et al., "Quantization and training of neural networks for efficient
    integer-arithmetic-only inference", 2018, section 3.2, equation 14.
    """
    producer, gamma, beta, mean, variance = node.args[:5]
    if not isinstance(producer, fx.Node) or mean is None or variance is None:
        return
    deviation = torch.sqrt(get_tensor(module, _path(variance)) + float(node.args[7]))  # type: ignore[arg-type]
    factor = 1 / deviation if gamma is None else get_tensor(module, _path(gamma)) / deviation
    shift = -get_tensor(module, _path(mean)) * factor
    if beta is not None:
        shift = shift + get_tensor(module, _path(beta))
    layers = (*WEIGHTED, TRANSPOSED)
    has_own_weight = producer.target in layers and is_constant(producer.args[1])
    # Behind a linear layer axis 1 is its output only for [N, C]; for [N, T, C] it is time.
    same_axis = producer.target is not aten.linear.default or node.meta["val"].ndim == 2
    if has_own_weight and same_axis and len(producer.users) == 1:
        _scale_output_channels(module, producer, factor, shift)
        node.replace_all_uses_with(producer)
    elif node.meta["val"].ndim == 4:
        _replace_by_depthwise(module, node, producer, factor, shift)


def _scale_output_channels(
    module: fx.GraphModule, node: fx.Node, factor: torch.Tensor, shift: torch.Tensor
) -> None:
    """Give a weighted operator ``factor * output + shift`` as its output, per channel.

    The weight is stored anew: the module's own may serve another operator too.
    """
    path = _path(node.args[1])
    weight = get_tensor(module, path)
    if len(node.args) > 2 and node.args[2] is not None:
        shift = shift + get_tensor(module, _path(node.args[2])) * factor
    scaled = weight * _along_outputs(node, weight, factor)
    folded = insert_constant(module, node, f"{path}_{node.name}", scaled)
    bias = insert_constant(module, node, f"{path}_{node.name}_bias", shift)
    node.args = (node.args[0], folded, bias, *node.args[3:])


def _along_outputs(node: fx.Node, weight: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Return a factor per output channel in a shape that multiplies the weight."""
    if node.target is TRANSPOSED:
        # Its weight is [C_in, C_out / groups, ...]: the outputs of a group stand behind its inputs.
        by_group = factor.view(groups_of(node), -1)
        repeated = by_group.repeat_interleave(len(weight) // len(by_group), dim=0)
        return repeated.view(*repeated.shape, 1, 1)
    shape = [1] * weight.ndim
    shape[WEIGHTED[node.target]] = -1
    return factor.view(shape)


def affine_to_depthwise(module: fx.GraphModule, node: fx.Node) -> None:
    """Turn ``(x - mean) * k`` or ``(x - mean) / k`` over channels into a 1x1 depthwise conv.

    One integer operator on every runtime. It must not be folded into the convolution behind it:
    that is not exact where the convolution pads with zeros.
    """
    inner, k = node.args[:2]
    if not (isinstance(inner, fx.Node) and inner.target is aten.sub.Tensor and is_constant(k)):
        return
    x, mean = inner.args[:2]
    if not is_constant(mean) or len(inner.args) > 2 or not isinstance(x, fx.Node):
        return
    channels = node.meta["val"].shape[1] if node.meta["val"].ndim == 4 else 0
    if tuple(x.meta["val"].shape[1:]) != tuple(node.meta["val"].shape[1:]):
        return
    constants = [get_tensor(module, _path(c)) for c in (mean, k)]
    if any(c.numel() != channels or c.shape[-2:] != (1, 1) for c in constants):
        return
    offset, factor = (c.flatten() for c in constants)
    factor = 1 / factor if node.target is aten.div.Tensor else factor
    _replace_by_depthwise(module, node, x, factor, -offset * factor)


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


def _replace_by_depthwise(
    module: fx.GraphModule, node: fx.Node, x: fx.Node, factor: torch.Tensor, shift: torch.Tensor
) -> None:
    weight = factor.view(-1, 1, 1, 1)
    w = insert_constant(module, node, f"{node.name}_weight", weight)
    b = insert_constant(module, node, f"{node.name}_bias", shift)
    conv = insert_call(
        module.graph, node, aten.conv2d.default, x, w, b, [1, 1], [0, 0], [1, 1], len(factor)
    )
    conv.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(conv)


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


def _path(node: object) -> str:
    if not isinstance(node, fx.Node):
        raise TypeError(f"expected a constant of the graph, got {node!r}")
    return str(node.target)


REWRITES: dict[Any, Callable[[fx.GraphModule, fx.Node], None]] = {
    aten.batch_norm.default: fold_batch_norm,
    aten.mul.Tensor: affine_to_depthwise,
    aten.div.Tensor: affine_to_depthwise,
    aten.silu.default: open_silu,
    aten.silu_.default: open_silu,
    aten.scaled_dot_product_attention.default: open_attention,
    aten.split.Tensor: open_split,
    aten.split_with_sizes.default: open_split,
    aten.chunk.default: open_split,
    aten.unbind.int: open_unbind,
}
