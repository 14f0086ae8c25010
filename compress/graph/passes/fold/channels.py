"""A scale and a shift per channel, as part of a layer or as a layer."""

from torch import Tensor, fx

from edgedl.compress.graph.edit import get_tensor, insert_call, insert_constant
from edgedl.compress.graph.operators.table import TRANSPOSED, WEIGHTED, aten, groups_of


def scale_output_channels(
    module: fx.GraphModule, node: fx.Node, factor: Tensor, shift: Tensor
) -> None:
    """Give a weighted operator ``factor * output + shift`` as its output, per channel.

    The weight is stored anew: the module's own may serve another operator too.
    """
    path = path_of(node.args[1])
    weight = get_tensor(module, path)
    if len(node.args) > 2 and node.args[2] is not None:
        shift = shift + get_tensor(module, path_of(node.args[2])) * factor
    scaled = weight * _along_outputs(node, weight, factor)
    folded = insert_constant(module, node, f"{path}_{node.name}", scaled)
    bias = insert_constant(module, node, f"{path}_{node.name}_bias", shift)
    node.args = (node.args[0], folded, bias, *node.args[3:])


def _along_outputs(node: fx.Node, weight: Tensor, factor: Tensor) -> Tensor:
    """Return a factor per output channel in a shape that multiplies the weight."""
    if node.target is TRANSPOSED:
        # Its weight is [C_in, C_out / groups, ...]: the outputs of a group stand behind its inputs.
        by_group = factor.view(groups_of(node), -1)
        repeated = by_group.repeat_interleave(len(weight) // len(by_group), dim=0)
        return repeated.view(*repeated.shape, 1, 1)
    shape = [1] * weight.ndim
    shape[WEIGHTED[node.target]] = -1
    return factor.view(shape)


def insert_depthwise(
    module: fx.GraphModule, node: fx.Node, x: fx.Node, factor: Tensor, shift: Tensor
) -> fx.Node:
    """Insert the convolution ``factor * x + shift`` of [N, C, H, W] or [N, C, T]."""
    axes = node.meta["val"].ndim - 2
    w = insert_constant(module, node, f"{node.name}_weight", factor.view(-1, 1, *[1] * axes))
    b = insert_constant(module, node, f"{node.name}_bias", shift)
    convolution = aten.conv2d.default if axes == 2 else aten.conv1d.default
    one, none = [1] * axes, [0] * axes
    conv = insert_call(module.graph, node, convolution, x, w, b, one, none, one, len(factor))
    conv.meta["val"] = node.meta["val"]
    return conv


def path_of(node: object) -> str:
    """Return the path of the tensor that a constant of the graph reads."""
    if not isinstance(node, fx.Node):
        raise TypeError(f"expected a constant of the graph, got {node!r}")
    return str(node.target)
