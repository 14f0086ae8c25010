"""Scales and shifts of channels in front of layers that pad nothing."""

from torch import Tensor, fx

from edgedl.compress.graph.edit import get_tensor, insert_constant
from edgedl.compress.graph.operators.convolution import CONVOLUTIONS, Convolution
from edgedl.compress.graph.operators.linear import LINEAR
from edgedl.compress.graph.operators.operator import Weighted, set_argument
from edgedl.compress.graph.operators.table import row_of
from edgedl.compress.graph.passes.fold.batch_norm import FoldBatchNorm
from edgedl.compress.graph.passes.fold.channel_norm import ChannelNorm, is_far, pads
from edgedl.compress.graph.passes.fold.normalisation import NormalisationAsDepthwise
from edgedl.compress.graph.passes.graph_pass import Pass


class FoldIntoNextLayer(Pass):
    """Fold a number for each channel into the linear layers or convolutions that read them.

    Only where those pad nothing: zeros of the padding stand for the normalised zero. And of a
    network's input only where it can lie on one grid of 8 bits as well as the normalised one.
    Layers that share a weight take nothing in, as it would be stored twice. A layer of one place
    that the user wrote for each channel is folded like any other.

    Before: ``conv2d(conv2d(x, k, c, groups=C), w, b)``. After: ``conv2d(x, w * k, b + w @ c)``.
    """

    requires = (FoldBatchNorm, NormalisationAsDepthwise)
    operators = frozenset(overload for row in (*CONVOLUTIONS, LINEAR) for overload in row.overloads)

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Fold what one layer reads."""
        layer = Weighted.of(node)
        before = layer.input
        if not all(
            user.target in self.operators and _can_take(user, before) for user in before.users
        ):
            return None
        is_linear = row_of(node) is LINEAR
        norm = ChannelNorm.of(module, before, axis=-1 if is_linear else 1)
        if norm is None or is_far(norm.shift):
            return None
        if norm.is_of_input and not norm.fits_one_grid:
            return None
        groups = 1 if is_linear else Convolution.of(node).groups
        weight = get_tensor(module, layer.weight_path)
        per_output = _by_output(norm.factor, groups, weight)
        added = (weight * _by_output(norm.shift, groups, weight)).flatten(1).sum(1)
        bias_path = layer.bias_path
        bias = added if bias_path is None else added + get_tensor(module, bias_path)
        path = f"{node.name}_normalising"
        set_argument(node, "weight", insert_constant(module, node, path, weight * per_output))
        set_argument(node, "bias", insert_constant(module, node, f"{path}_bias", bias))
        set_argument(node, "input", norm.source)
        return node


def _can_take(layer: fx.Node, value: fx.Node) -> bool:
    view = Weighted.of(layer)
    if not view.is_stored or view.input is not value or _is_shared(layer, view.weight_path):
        return False
    return row_of(layer) is LINEAR or not pads(Convolution.of(layer))


def _is_shared(layer: fx.Node, weight: str) -> bool:
    """Say whether something else reads a layer's weight, which would then be stored twice."""
    readers = layer.graph.find_nodes(op="get_attr", target=weight)
    return sum(len(reader.users) for reader in readers) > 1


def _by_output(values: Tensor, groups: int, weight: Tensor) -> Tensor:
    """Return a value per input channel in a shape that multiplies a weight [out, in / groups, ...].

    The inputs of an output are those of its group.
    """
    by_group = values.view(groups, -1).repeat_interleave(len(weight) // groups, dim=0)
    return by_group.view(*by_group.shape, *[1] * (weight.ndim - 2))
