"""Which weights stay: the largest, of a layer, of the network, or two of every four inputs."""

from collections.abc import Sequence

import torch
from torch import Tensor

GROUP, KEPT = 4, 2


def largest_of_each(weights: Sequence[Tensor], sparsity: float) -> list[Tensor]:
    """Return masks that leave out the same share of every weight.

    Source: Han et al., "Learning both weights and connections for efficient neural networks",
    2015, section 3.1, with a share in the place of a threshold.

    Args:
        weights: float32 of any shapes.
        sparsity: share of the values to leave out; the number is rounded to the nearest.

    Returns:
        For each weight a bool tensor of its shape, true where the value stays.

    >>> largest_of_each([torch.tensor([3.0, -1.0, 2.0, -4.0])], 0.5)[0].tolist()
    [True, False, False, True]
    """
    return [_largest(weight.flatten(), sparsity).view(weight.shape) for weight in weights]


def largest_of_all(weights: Sequence[Tensor], sparsity: float) -> list[Tensor]:
    """Return masks that leave out a share of all weights together, wherever the smallest are."""
    whole = _largest(torch.cat([weight.flatten() for weight in weights]), sparsity)
    parts = whole.split([weight.numel() for weight in weights])
    return [part.view(w.shape) for part, w in zip(parts, weights, strict=True)]


def two_of_four(weight: Tensor) -> Tensor:
    """Return the mask of the two largest of every four neighbours along the input axis.

    Every output channel and every place of a kernel has groups of its own.

    Source: Mishra et al., "Accelerating sparse deep neural networks", 2021, section 3.

    Args:
        weight: [C_out, C_in, ...]; C_in is a multiple of 4.
    """
    order = _in_groups(weight.abs()).sort(dim=-1, descending=True, stable=True).indices
    mask = torch.zeros(order.shape, dtype=torch.bool).scatter(-1, order[..., :KEPT], True)
    return mask.flatten(-2).movedim(-1, 1)


def fits_two_of_four(weight: Tensor) -> bool:
    """Say whether the input axis can be divided into fours."""
    return weight.shape[1] % GROUP == 0


def is_two_of_four(weight: Tensor) -> bool:
    """Say whether at most two of every four neighbours along the input axis are not zero."""
    if not fits_two_of_four(weight):
        return False
    return bool((_in_groups(weight).count_nonzero(-1) <= KEPT).all())


def sparsity_of(weights: Sequence[Tensor]) -> float:
    """Return the share of zeros in some weights."""
    total = sum(weight.numel() for weight in weights)
    return 1 - sum(int(weight.count_nonzero()) for weight in weights) / total


def _in_groups(weight: Tensor) -> Tensor:
    """Return the values [C_out, ..., C_in / 4, 4] of a weight [C_out, C_in, ...]."""
    last = weight.movedim(1, -1)
    return last.reshape(*last.shape[:-1], -1, GROUP)


def _largest(values: Tensor, sparsity: float) -> Tensor:
    """Return the mask of values [n] that leaves out the smallest; of equal ones the first."""
    mask = torch.ones(len(values), dtype=torch.bool)
    mask[values.abs().argsort(stable=True)[: round(sparsity * len(values))]] = False
    return mask
