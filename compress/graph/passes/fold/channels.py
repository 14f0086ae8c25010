"""A scale and a shift per channel, as part of a layer or as a layer."""

from torch import Tensor, fx

from edgedl.compress.graph.edit import get_tensor, insert_call, insert_constant
from edgedl.compress.graph.operators.convolution import TRANSPOSED
from edgedl.compress.graph.operators.operator import Weighted, aten, set_argument
from edgedl.compress.graph.operators.table import groups_of, row_of
from edgedl.compress.graph.values import shape_of


def scale_output_channels(
    module: fx.GraphModule, node: fx.Node, factor: Tensor, shift: Tensor
) -> None:
    """Give a weighted operator ``factor * output + shift`` as its output, per channel.

    The weight is stored anew: the module's own may serve another operator too.
    """
    path, bias_path = Weighted.of(node).weight_path, Weighted.of(node).bias_path
    weight = get_tensor(module, path)
    if bias_path is not None:
        shift = shift + get_tensor(module, bias_path) * factor
    scaled = weight * _along_outputs(node, weight, factor)
    folded = insert_constant(module, node, f"{path}_{node.name}", scaled)
    set_argument(node, "weight", folded)
    set_argument(node, "bias", insert_constant(module, node, f"{path}_{node.name}_bias", shift))


def _along_outputs(node: fx.Node, weight: Tensor, factor: Tensor) -> Tensor:
    """Return a factor per output channel in a shape that multiplies the weight."""
    row = row_of(node)
    if row is TRANSPOSED:
        # Its weight is [C_in, C_out / groups, ...]: the outputs of a group stand behind its inputs.
        by_group = factor.view(groups_of(node), -1)
        repeated = by_group.repeat_interleave(len(weight) // len(by_group), dim=0)
        return repeated.view(*repeated.shape, 1, 1)
    shape = [1] * weight.ndim
    shape[row.weight_axis] = -1
    return factor.view(shape)


def insert_depthwise(
    module: fx.GraphModule, node: fx.Node, x: fx.Node, factor: Tensor, shift: Tensor
) -> fx.Node:
    """Insert the convolution ``factor * x + shift`` of [N, C, H, W] or [N, C, T]."""
    axes = len(shape_of(node)) - 2
    w = insert_constant(module, node, f"{node.name}_weight", factor.view(-1, 1, *[1] * axes))
    b = insert_constant(module, node, f"{node.name}_bias", shift)
    convolution = aten.conv2d.default if axes == 2 else aten.conv1d.default
    one, none = [1] * axes, [0] * axes
    return insert_call(module.graph, node, convolution, x, w, b, one, none, one, len(factor))
