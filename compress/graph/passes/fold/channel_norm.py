"""A scale and a shift for each channel in front of a layer, whoever wrote them and however."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from edgedl.compress.graph.edit import get_tensor
from edgedl.compress.graph.operators.convolution import CONVOLUTIONS, Convolution
from edgedl.compress.graph.operators.operator import Weighted
from edgedl.compress.graph.operators.table import row_of
from edgedl.compress.graph.passes.fold.chain import AffineChain
from edgedl.compress.graph.values import value_of

# Beyond these the input as it is lies on a much wider grid than the normalised one, which has mean
# 0 and deviation 1: how many deviations 0 is away, and how much channels differ in deviation.
MOST_SHIFT = 4.0
MOST_UNEVEN = 2.0
# A shift by more than this cancels the product in front of it, and leaves its rounding.
FAR_SHIFT = 1000.0


@dataclass(frozen=True)
class ChannelNorm:
    """``factor * source + shift``, with a number for each channel.

    Attributes:
        source: the value that is scaled.
        factor, shift: float32 [C].
    """

    source: fx.Node
    factor: Tensor
    shift: Tensor

    @classmethod
    def of(cls, module: fx.GraphModule, node: fx.Node, axis: int) -> "ChannelNorm | None":
        """Return the norm whose last operator is a node: a layer of one place, sums, products.

        Args:
            module: of the node.
            node: any; for all else the result is None.
            axis: of the channels.
        """
        if axis == 1 and is_depthwise_norm(node):
            return cls(Convolution.of(node).input, *factor_and_shift(module, node))
        chain = AffineChain.through(module, node, axis)
        if chain is None or chain.nodes[0] is not node:
            return None
        return cls(chain.source, chain.factor, chain.shift)

    @property
    def is_of_input(self) -> bool:
        """Whether it scales what the network is given."""
        return self.source.op == "placeholder"

    @property
    def fits_one_grid(self) -> bool:
        """Whether the source lies as well on one grid of 8 bits as what is made of it."""
        return fits_one_grid(self.factor, self.shift)


def fits_one_grid(factor: Tensor, shift: Tensor) -> bool:
    """Say whether values lie as well on one grid of 8 bits as ``factor * values + shift``."""
    sizes = factor.abs()
    return bool(shift.abs().max() <= MOST_SHIFT and sizes.max() <= MOST_UNEVEN * sizes.min())


def is_far(shift: Tensor) -> bool:
    """Say whether a shift is so large that a product and a sum are less exact than a batch norm."""
    return bool(shift.abs().max() > FAR_SHIFT)


def is_depthwise_norm(node: fx.Node) -> bool:
    """Say whether a node is a depthwise convolution of one place: a number for each channel.

    ``FoldBatchNorm`` and ``NormalisationAsDepthwise`` write such.
    """
    if row_of(node) not in CONVOLUTIONS:
        return False
    layer = Convolution.of(node)
    weight = layer.weight.meta.get("val")
    return (
        Weighted.of(node).is_stored
        and isinstance(weight, Tensor)
        and tuple(weight.shape) == (layer.groups, 1, *[1] * (weight.ndim - 2))
        and layer.groups == value_of(layer.input).shape[1]
        and set(layer.stride) == {1}
        and not pads(layer)
    )


def pads(layer: Convolution) -> bool:
    """Say whether a convolution reads zeros beyond the edge."""
    if isinstance(layer.padding, str):
        # "same" pads nothing where the kernel is one place.
        places = math.prod(value_of(layer.weight).shape[2:])
        return layer.padding == "same" and places > 1
    return any(layer.padding)


def factor_and_shift(module: fx.GraphModule, norm: fx.Node) -> tuple[Tensor, Tensor]:
    """Return what a depthwise convolution of one place multiplies channels with, and adds: [C]."""
    layer = Weighted.of(norm)
    factor = get_tensor(module, layer.weight_path).flatten()
    if layer.bias_path is None:
        return factor, torch.zeros_like(factor)
    return factor, get_tensor(module, layer.bias_path)
