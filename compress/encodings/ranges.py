"""How a range is chosen from the distribution of what a tensor held."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from edgedl.compress.encodings.encodings import Range

LEVELS = {8: 255, 16: 65535}
# Candidate ends, as shares of the observed end: 0.3 to 1.0 in steps of 0.01.
SHRINK = torch.linspace(0.3, 1.0, 71).tolist()
# Stands for a probability of zero where a logarithm is taken of it.
SMALLEST_PROBABILITY = 1e-12


@dataclass(frozen=True)
class Distribution:
    """What a tensor held, counted in bins of one width, zero at a border between two.

    Attributes:
        counts: float64 [B], values per bin.
        start: left end of the first bin, a multiple of ``width``.
        width: of a bin.
        lo: smallest value seen. hi: largest value seen; ``lo < hi``.
    """

    counts: Tensor
    start: float
    width: float
    lo: float
    hi: float

    def centers(self) -> Tensor:
        """Return the middle of every bin, float64 [B], within what was seen.

        A bin's own middle may lie outside of that; the values in it do not.
        """
        index = torch.arange(len(self.counts), dtype=torch.float64)
        return ((index + 0.5) * self.width + self.start).clamp(self.lo, self.hi)

    def search(self, cost: Callable[[float, float], float]) -> Range:
        """Return the range of least cost among shrunk ones, one end at a time.

        Shrinking both ends together would clip the hard lower end of activations such as SiLU.
        Of equal costs the wider range is taken. Zero is always inside.
        """
        lo, hi = min(self.lo, 0.0), max(self.hi, 0.0)
        if hi > 0:
            hi = min((cost(lo, hi * k), -k, hi * k) for k in SHRINK)[2]
        if lo < 0:
            lo = min((cost(lo * k, hi), -k, lo * k) for k in SHRINK)[2]
        return Range(lo, hi)


def least_squares(seen: Distribution, bits: int = 8) -> Range:
    """Return the range of least mean squared error of integers of 8 or 16 bits."""
    levels = LEVELS[bits]
    used = seen.counts > 0
    centers = seen.centers()[used]
    shares = seen.counts[used] / seen.counts.sum()

    def error(lo: float, hi: float) -> float:
        step = (hi - lo) / levels
        quantized = torch.clamp(torch.round((centers - lo) / step), 0, levels) * step + lo
        return float((shares * (quantized - centers) ** 2).sum())

    return seen.search(error)


def inner_mass(seen: Distribution, percentile: float) -> Range:
    """Return the range that holds ``percentile`` % of all values, as many lost at either end.

    Inside a bin values are taken as spread evenly.

    Source: two-sided form of Wu et al., "Integer quantization for deep learning inference:
    principles and empirical evaluation", 2020, section 5.1, "percentile".
    """
    lost = float(seen.counts.sum()) * (1 - percentile / 100) / 2
    lo = seen.start + seen.width * _position(seen.counts, lost)
    end = seen.start + seen.width * len(seen.counts)
    hi = end - seen.width * _position(seen.counts.flip(0), lost)
    clipped = [min(max(x, seen.lo), seen.hi) for x in (lo, hi)]
    return Range(*clipped)


def _position(counts: Tensor, mass: float) -> float:
    """Return how many bins from the left, in parts of a bin, hold ``mass`` values."""
    cumulated = counts.cumsum(0)
    index = int(torch.searchsorted(cumulated, mass))
    if mass == 0 or index == len(counts):
        return 0.0
    return index + 1 - float((cumulated[index] - mass) / counts[index])


def least_divergence(seen: Distribution, bits: int = 8) -> Range:
    """Return the range whose levels (256 of 8 bits) lose least information, by relative entropy.

    For a candidate range, P is the histogram inside it with what lies beyond an end added to the
    last bin of that end. Q is the histogram inside it (without that) in those levels: the bins
    whose centers fall into one level share their sum evenly, empty bins stay empty. The cost is
    KL(P || Q) of both normed to 1. Unlike TensorRT's search over one threshold of magnitudes, each
    end is searched by itself, so that asymmetric ranges stay so. The bin that starts at zero gets
    its larger neighbour's count if it has more: zero is on every grid, so that the many exact
    zeros behind a ReLU lose nothing, wherever the ends are.

    Source: Migacz, "8-bit inference with TensorRT", GTC 2017, pages 31-39; the zero bin as in Wu et
    al., "Integer quantization for deep learning inference: principles and empirical evaluation",
    2020, the authors' pytorch-quantization.
    """
    levels = LEVELS[bits]
    counts = seen.counts.clone()
    zero = round(-seen.start / seen.width)
    if 0 < zero < len(counts) - 1:
        counts[zero] = min(counts[zero], max(counts[zero - 1], counts[zero + 1]))
    centers = seen.centers()

    def divergence(lo: float, hi: float) -> float:
        first = int(torch.searchsorted(centers, lo))
        last = int(torch.searchsorted(centers, hi, right=True))
        inside = counts[first:last]
        if not inside.any():
            return float("inf")
        p = inside.clone()
        p[0] += counts[:first].sum()
        p[-1] += counts[last:].sum()
        level = ((centers[first:last] - lo) / (hi - lo) * (levels + 1)).long().clamp(0, levels)
        return _relative_entropy(p, _in_levels(inside, level, levels + 1))

    return seen.search(divergence)


def _in_levels(counts: Tensor, level: Tensor, levels: int) -> Tensor:
    """Return counts with each level's sum shared evenly by its bins that are not empty."""
    used = (counts > 0).double()
    sums = torch.zeros(levels, dtype=torch.float64).index_add_(0, level, counts)
    bins = torch.zeros(levels, dtype=torch.float64).index_add_(0, level, used)
    return (sums / bins.clamp(min=1))[level] * used


def _relative_entropy(p: Tensor, q: Tensor) -> float:
    """Return KL(P || Q) of counts; a bin that only P has costs as if Q had almost nothing."""
    p, q = p / p.sum(), q / q.sum()
    used = p > 0
    return float((p[used] * (p[used] / q[used].clamp(min=SMALLEST_PROBABILITY)).log()).sum())
