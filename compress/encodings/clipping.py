"""Choose the largest magnitude that a weight's integers cover, channel by channel."""

from typing import Literal

import torch
from torch import Tensor

from edgedl.compress.encodings.encodings import WEIGHT_QMAX
from edgedl.compress.encodings.ranges import SHRINK

WeightObserver = Literal["minmax", "mse"]


def least_error_amax(weight: Tensor, qmax: int = WEIGHT_QMAX) -> Tensor:
    """Return the magnitude per channel whose integers are nearest to the weight's values.

    Of the shares ``SHRINK`` of a channel's largest magnitude, that of least squared error of
    rounding and saturation together; of equal errors the largest.

    Source: Nagel et al., "A white paper on neural network quantization", 2021, section 3.1, "mean
    squared error" range setting, equation 14.

    Args:
        weight: float32 [C, K], an output channel per row.
        qmax: largest integer.

    Returns:
        float32 [C].
    """
    whole = weight.abs().amax(1)
    best = whole
    least = torch.full_like(whole, torch.inf)
    for share in reversed(SHRINK):
        amax = whole * share
        # A channel of zeros has no step; any will do, since its error is zero.
        step = (amax / qmax).clamp(min=torch.finfo(weight.dtype).tiny)[:, None]
        rounded = (weight / step).round().clamp(-qmax, qmax) * step
        error = (rounded - weight).square().sum(1)
        better = error < least
        best, least = torch.where(better, amax, best), torch.where(better, error, least)
    return best
