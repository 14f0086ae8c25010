"""Fold scales and shifts into the layers around them: batch norms, affine maps, numbers.

Every rewrite is exact up to float rounding; ``trace`` checks that.
"""

from typing import Any

import torch
from torch import fx

from edgedl.compress.graph.edit import get_tensor, insert_call, insert_constant, is_constant
from edgedl.compress.graph.operators.table import (
    LINEAR,
    MULTIPLY,
    TRANSPOSED,
    WEIGHTED,
    aten,
    groups_of,
)
from edgedl.compress.graph.passes.products import scale_producer


def fold_batch_norm(module: fx.GraphModule, node: fx.Node) -> None:
    """Fold an inference-mode batch norm into the convolution or linear before it.

    A batch norm without such an operator of its own becomes a depthwise convolution of one place
    (for [N, C, H, W] and [N, C, T]) or stays as it is.

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
        module.graph.erase_node(node)
    elif node.meta["val"].ndim in (3, 4):
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


def fold_affine(module: fx.GraphModule, node: fx.Node) -> None:
    """Fold a product or sum with a number, or a stored one per channel, into the layer before it.

    The result is exact: nothing but that reads the layer. A factor may stand behind a ReLU, or in
    front of another layer.
    """
    producer, operand = node.args[:2]
    if is_constant(producer):
        producer, operand = operand, producer
    if not isinstance(producer, fx.Node):
        return
    if producer.target not in (*WEIGHTED, TRANSPOSED):
        if node.target is MULTIPLY and isinstance(operand, (int, float)):
            _fold_factor(module, node, producer, float(operand))
        return
    constants = [c for c in producer.args[1:3] if c is not None]
    if len(producer.users) > 1 or not all(map(is_constant, constants)):
        return
    if tuple(producer.meta["val"].shape) != tuple(node.meta["val"].shape):
        return
    values = _per_channel(module, node, operand, -1 if producer.target is LINEAR else 1)
    if values is None:
        return
    if node.target is MULTIPLY:
        factor, shift = values, torch.zeros_like(values)
    else:
        factor, shift = torch.ones_like(values), values
    _scale_output_channels(module, producer, factor, shift)
    node.replace_all_uses_with(producer)
    module.graph.erase_node(node)


def _fold_factor(module: fx.GraphModule, node: fx.Node, value: fx.Node, factor: float) -> None:
    """Fold a product with a number into the layer before a ReLU, or into the one behind it."""
    behind = next(iter(node.users)) if len(node.users) == 1 else None
    if not scale_producer(module, value, factor):
        if behind is None or behind.target not in WEIGHTED or behind.args[0] is not node:
            return
        if not is_constant(behind.args[1]):
            return
        path = _path(behind.args[1])
        scaled = get_tensor(module, path) * factor
        behind.update_arg(1, insert_constant(module, behind, f"{path}_{behind.name}", scaled))
    node.replace_all_uses_with(value)
    module.graph.erase_node(node)


def _per_channel(
    module: fx.GraphModule, node: fx.Node, operand: Any, axis: int
) -> torch.Tensor | None:
    """Return a number or a stored tensor as one value per channel; None if it is something else."""
    shape = node.meta["val"].shape
    if isinstance(operand, (int, float)):
        return torch.full((shape[axis],), float(operand))
    if not is_constant(operand):
        return None
    values = get_tensor(module, _path(operand))
    if values.numel() == 1:
        return values.flatten().expand(shape[axis])
    sizes = [1] * (len(shape) - values.ndim) + list(values.shape)
    return values.flatten() if sizes[axis] == values.numel() == shape[axis] else None


def affine_to_depthwise(module: fx.GraphModule, node: fx.Node) -> None:
    """Turn ``(x + offset) * k`` over channels into a 1x1 depthwise conv.

    One integer operator on every runtime. It must not be folded into the convolution behind it:
    that is not exact where the convolution pads with zeros.
    """
    inner, k = node.args[:2]
    if not (isinstance(inner, fx.Node) and inner.target is aten.add.Tensor and is_constant(k)):
        fold_affine(module, node)
        return
    x, added = inner.args[:2]
    if not is_constant(added) or not isinstance(x, fx.Node):
        return
    channels = node.meta["val"].shape[1] if node.meta["val"].ndim == 4 else 0
    if tuple(x.meta["val"].shape[1:]) != tuple(node.meta["val"].shape[1:]):
        return
    constants = [get_tensor(module, _path(c)) for c in (added, k)]
    if any(c.numel() != channels or c.shape[-2:] != (1, 1) for c in constants):
        return
    offset, factor = (c.flatten() for c in constants)
    _replace_by_depthwise(module, node, x, factor, offset * factor)


def _replace_by_depthwise(
    module: fx.GraphModule, node: fx.Node, x: fx.Node, factor: torch.Tensor, shift: torch.Tensor
) -> None:
    """Write ``factor * x + shift`` per channel of [N, C, H, W] or [N, C, T] as a convolution."""
    axes = node.meta["val"].ndim - 2
    w = insert_constant(module, node, f"{node.name}_weight", factor.view(-1, 1, *[1] * axes))
    b = insert_constant(module, node, f"{node.name}_bias", shift)
    convolution = aten.conv2d.default if axes == 2 else aten.conv1d.default
    one, none = [1] * axes, [0] * axes
    conv = insert_call(module.graph, node, convolution, x, w, b, one, none, one, len(factor))
    conv.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(conv)


def _path(node: object) -> str:
    if not isinstance(node, fx.Node):
        raise TypeError(f"expected a constant of the graph, got {node!r}")
    return str(node.target)
