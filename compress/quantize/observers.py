"""Watch tensors go by and choose the range their integers should cover.

Memory does not depend on the number of samples: each tensor has one histogram of fixed size.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from edgedl.compress.quantize.encodings import Range

BINS = 4096
# Values counted at a time: what the processor's cache holds.
CHUNK = 2**16
SMALLEST_SPAN = 2.0**-20
LEVELS = 255
# Candidate ends, as shares of the observed end: 0.3 to 1.0 in steps of 0.01.
SHRINK = torch.linspace(0.3, 1.0, 71).tolist()

Observer = Literal["minmax", "mse"]


class Histogram:
    """A histogram over [-span, span] that doubles its span by merging bins in pairs.

    Because the span is always a power of two, the result is exact and does not depend on the
    order of the batches.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.span = SMALLEST_SPAN
        self.counts = torch.zeros(BINS, dtype=torch.float64)
        self.lo, self.hi = math.inf, -math.inf

    def add(self, x: Tensor) -> None:
        """Count the values of a float tensor of any shape.

        Raises:
            ValueError: when a value is not finite.
        """
        if x.numel() == 0:
            return
        lo, hi = (v.item() for v in torch.aminmax(x))
        if not (math.isfinite(lo) and math.isfinite(hi)):
            raise ValueError("values that are not finite (NaN or inf)")
        self.lo, self.hi = min(self.lo, lo), max(self.hi, hi)
        while hi >= self.span or -lo > self.span:
            merged = self.counts.view(-1, 2).sum(1)
            border = merged.new_zeros(BINS // 4)
            self.counts = torch.cat([border, merged, border])
            self.span *= 2
        for part in x.detach().flatten().split(CHUNK):
            # Scaling by a power of two is exact, so no value is ever put into a neighbour's bin.
            bins = torch.mul(part, 1 / self._width).floor_().to(torch.int16).add_(BINS // 2)
            self.counts += torch.bincount(bins, minlength=BINS)

    def range(self, observer: Observer) -> Range:
        """Return the range that an observer chooses.

        "minmax": all that was seen. "mse": the range of least mean squared quantization error,
        searched one end at a time (shrinking both ends together clips the hard lower end of
        activations such as SiLU).

        Raises:
            ValueError: when nothing was seen.
        """
        if self.lo > self.hi:
            raise ValueError("no value was observed")
        if observer == "minmax" or self.lo == self.hi:
            return Range(self.lo, self.hi)
        lo, hi = min(self.lo, 0.0), max(self.hi, 0.0)
        if hi > 0:
            hi = min((self._error(lo, hi * k), -k, hi * k) for k in SHRINK)[2]
        if lo < 0:
            lo = min((self._error(lo * k, hi), -k, lo * k) for k in SHRINK)[2]
        return Range(lo, hi)

    @property
    def _width(self) -> float:
        return 2 * self.span / BINS

    def _error(self, lo: float, hi: float) -> float:
        """Return the mean squared error of quantizing the histogram with 256 levels."""
        used = self.counts > 0
        centers = (torch.arange(BINS, dtype=torch.float64)[used] + 0.5) * self._width - self.span
        # A bin's center may lie outside what was seen; the values in it do not.
        centers = centers.clamp(self.lo, self.hi)
        step = (hi - lo) / LEVELS
        quantized = torch.clamp(torch.round((centers - lo) / step), 0, LEVELS) * step + lo
        shares = self.counts[used] / self.counts.sum()
        return float((shares * (quantized - centers) ** 2).sum())
