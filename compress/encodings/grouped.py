"""Weights as integers with a step for every group of inputs; all arithmetic stays float32."""

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from edgedl.compress.encodings.clipping import WeightObserver, least_error_amax

# The smallest group that the kernels of every runtime take.
SMALLEST_GROUP = 16


@dataclass(frozen=True)
class GroupedWeight:
    """The integers of one weight: real = scale * integer, symmetric, no zero points.

    Attributes:
        integers: int8 [C_out, ...], the output channels first, -(2^(bits-1) - 1) to its negative.
        scales: float32 [C_out, groups]; a group is a run of consecutive inputs.
        bits: of every integer, 4 or 8.
    """

    integers: Tensor
    scales: Tensor
    bits: int

    @property
    def group_size(self) -> int:
        """Return how many inputs share a step."""
        return int(self.integers[0].numel()) // self.scales.shape[1]

    @property
    def per_channel(self) -> bool:
        """Say whether an output channel has one step."""
        return self.scales.shape[1] == 1

    def dequantized(self) -> Tensor:
        """Return the real values, float32 of the integers' shape, to the bit as runtimes do."""
        grouped = self.integers.float().reshape(*self.scales.shape, -1)
        return (grouped * self.scales[:, :, None]).reshape(self.integers.shape)


@dataclass(frozen=True)
class WeightOnlyNetwork:
    """A network whose files hold some weights as integers.

    Attributes:
        graph: canonical float graph that computes with the dequantized weights.
        weights: path of a dequantized weight in the graph -> its integers.
        bits: of the integers, 4 or 8; those of convolutions have 8.
    """

    graph: fx.GraphModule
    weights: dict[str, GroupedWeight]
    bits: int


def largest_integer(bits: int) -> int:
    """Return the largest integer of a weight; the smallest is its negative.

    >>> largest_integer(4), largest_integer(8)
    (7, 127)
    """
    return int(2 ** (bits - 1)) - 1


def fitting_group(inputs: int, wanted: int | None) -> int:
    """Return the size of a layer's groups: as wanted if it divides the inputs.

    Else the largest half, quarter ... of it that does, down to 16, else all inputs.

    >>> [fitting_group(inputs, 32) for inputs in (64, 784, 100)], fitting_group(64, None)
    ([32, 16, 100], 64)
    """
    size = wanted or 0
    while size >= SMALLEST_GROUP:
        if inputs % size == 0:
            return size
        size //= 2
    return inputs


def group_scales(weight: Tensor, group_size: int, bits: int, observer: WeightObserver) -> Tensor:
    """Return the step of every group, float32 [C_out, groups].

    Args:
        weight: float32 [C_out, K].
        group_size: divides K.
        bits: of the integers.
        observer: "minmax" covers the largest magnitude of a group, "mse" has the least squared
            error of rounding and saturation together.
    """
    groups = weight.reshape(-1, group_size)
    qmax = largest_integer(bits)
    amax = groups.abs().amax(1) if observer == "minmax" else least_error_amax(groups, qmax)
    scales = amax / qmax
    # A group of zeros has no step; any will do, and runtimes refuse 0.
    return torch.where(scales > 0, scales, torch.ones(())).float().reshape(len(weight), -1)


def round_to_groups(weight: Tensor, scales: Tensor, bits: int) -> GroupedWeight:
    """Return a weight [C_out, ...] rounded to the nearest integers of its groups."""
    qmax = largest_integer(bits)
    grouped = weight.reshape(*scales.shape, -1)
    integers = (grouped / scales[:, :, None]).round().clamp(-qmax, qmax)
    return GroupedWeight(integers.to(torch.int8).reshape(weight.shape), scales, bits)
