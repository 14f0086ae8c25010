"""Watch tensors go by; ``ranges`` then chooses what their integers should cover.

Memory does not depend on the number of samples: each tensor has one histogram of fixed size.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from edgedl.compress.encodings.encodings import Range
from edgedl.compress.encodings.ranges import (
    Distribution,
    inner_mass,
    least_divergence,
    least_squares,
)

BINS = 4096
# Values counted at a time: what the processor's cache holds.
CHUNK = 2**16
# Of a larger tensor about so many values are counted, evenly spread.
COUNTED = 2**17
SMALLEST_SPAN = 2.0**-20
# What stays of the old ends at each new batch.
SMOOTHING = 0.95
# Share of values inside the range of "percentile", in percent.
PERCENTILE = 99.99

Observer = Literal["minmax", "moving_average", "mse", "percentile", "entropy"]


def _in_memory_order(x: Tensor) -> Tensor:
    """Return the values of a tensor as a vector, in the order of memory."""
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        x = x.movedim(1, 3)
    return x.flatten()


def _spread(count: int) -> int:
    """Return the step from one counted value to the next.

    It shares no divisor with the size, so that every channel and every column is counted.
    """
    step = max(1, count // COUNTED)
    while math.gcd(step, count) > 1:
        step += 1
    return step


class Histogram:
    """A histogram over [-span, span] that doubles its span by merging bins in pairs.

    Because the span is always a power of two, the result does not depend on the order of the
    batches; only the moving average of the ends does. Both ends are of all values; of a batch with
    more than twice ``COUNTED`` values a part is counted, and weighs as much as all.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.span = SMALLEST_SPAN
        self.counts = torch.zeros(BINS, dtype=torch.float64)
        self.lo, self.hi = math.inf, -math.inf
        self.smoothed: tuple[float, float] | None = None

    def add(self, x: Tensor) -> None:
        """Count the values of a float tensor of any shape.

        Raises:
            ValueError: when a value is not finite.
        """
        if x.numel() == 0:
            return
        values = _in_memory_order(x.detach())
        lo, hi = (v.item() for v in torch.aminmax(values))
        if not (math.isfinite(lo) and math.isfinite(hi)):
            raise ValueError("values that are not finite (NaN or inf)")
        self.lo, self.hi = min(self.lo, lo), max(self.hi, hi)
        self._smooth(lo, hi)
        while hi >= self.span or -lo > self.span:
            merged = self.counts.view(-1, 2).sum(1)
            border = merged.new_zeros(BINS // 4)
            self.counts = torch.cat([border, merged, border])
            self.span *= 2
        step = _spread(values.numel())
        for part in values[::step].split(CHUNK):
            # Scaling by a power of two is exact, so no value is ever put into a neighbour's bin.
            bins = torch.mul(part, 1 / self._width).floor_().to(torch.int16).add_(BINS // 2)
            self.counts += step * torch.bincount(bins, minlength=BINS)

    def range(self, observer: Observer, percentile: float = PERCENTILE, bits: int = 8) -> Range:
        """Return the range that an observer chooses.

        "minmax": all that was seen. "moving_average": an exponential average of every batch's
        smallest and largest value. "mse": the least mean squared quantization error.
        "percentile": all but a few values at both ends. "entropy": the least relative entropy.

        Args:
            observer: how to choose.
            percentile: share of values inside the range, in percent; for that observer alone.
            bits: of the integers that shall cover the range.

        Raises:
            ValueError: when nothing was seen.

        Source: Jacob et al., "Quantization and training of neural networks for efficient
        integer-arithmetic-only inference", 2018, section 3.1, for the moving average.
        """
        if self.smoothed is None:
            raise ValueError("no value was observed")
        if observer == "moving_average":
            return Range(*self.smoothed)
        if observer == "minmax" or self.lo == self.hi:
            return Range(self.lo, self.hi)
        seen = Distribution(self.counts, -self.span, self._width, self.lo, self.hi)
        if observer == "percentile":
            return inner_mass(seen, percentile)
        if observer == "mse":
            return least_squares(seen, bits)
        return least_divergence(seen, bits)

    @property
    def variance(self) -> float:
        """Variance of the values, from the middles of the bins; 0 where nothing was seen."""
        count = float(self.counts.sum())
        if not count:
            return 0.0
        centers = (torch.arange(BINS, dtype=torch.float64) - BINS / 2 + 0.5) * self._width
        mean = float((self.counts * centers).sum()) / count
        return float((self.counts * (centers - mean) ** 2).sum()) / count

    def _smooth(self, lo: float, hi: float) -> None:
        old_lo, old_hi = self.smoothed or (lo, hi)
        fresh = 1 - SMOOTHING
        # Of equal ends the sum of shares could differ in the last bit; a step towards them cannot.
        self.smoothed = old_lo + fresh * (lo - old_lo), old_hi + fresh * (hi - old_hi)

    @property
    def _width(self) -> float:
        return 2 * self.span / BINS
