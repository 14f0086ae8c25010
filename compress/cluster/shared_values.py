"""Few values for many weights: one-dimensional k-means, and the bytes that remain."""

from dataclasses import dataclass

import torch
from torch import Tensor

ROUNDS = 1000
VALUE_BYTES = 4


@dataclass(frozen=True)
class SharedValues:
    """Weights as places in a codebook.

    Attributes:
        codebook: float32 [k] in ascending order, each value used.
        indices: int64 [n], below k.
    """

    codebook: Tensor
    indices: Tensor

    def weights(self) -> Tensor:
        """Return the values float32 [n]."""
        return self.codebook.index_select(0, self.indices)

    def entropy_bits(self) -> float:
        """Return the mean bits of an index that no code for single indices can undercut.

        Source: Shannon, "A mathematical theory of communication", 1948, theorem 9.
        """
        shares = self.indices.bincount().double() / len(self.indices)
        return float(-(shares * shares.log2()).nansum())

    def coded_bytes(self) -> int:
        """Return the bytes of all indices at their entropy and of the codebook in float32."""
        bits = self.entropy_bits() * len(self.indices)
        # Rounding of the sum must not make a byte of its own.
        return int(-(-(bits - 1e-6) // 8)) + VALUE_BYTES * len(self.codebook)


def share_values(values: Tensor, count: int) -> SharedValues:
    """Return values as a few shared ones, by k-means from a linear start.

    Deterministic. Zeros are a shared value of their own, so that a sparse weight stays sparse.

    Source: Han et al., "Deep compression", 2016, section 3 and 3.2 (linear initialization).

    Args:
        values: float32 [n], at least one.
        count: of different values at most, at least 2.
    """
    nonzero = values[values != 0]
    centroids = _means(nonzero, count - (len(nonzero) < len(values)))
    nearest = _edges(centroids)
    chosen = values.double().clone()
    chosen[values != 0] = centroids[torch.bucketize(nonzero.double(), nearest)]
    codebook, indices = chosen.float().unique(sorted=True, return_inverse=True)
    return SharedValues(codebook, indices)


def _means(values: Tensor, count: int) -> Tensor:
    """Return at most ``count`` centroids float64 in ascending order; Lloyd's rounds to the end.

    In one dimension the values of a cluster are a run of the sorted ones, so that a round costs
    no more than looking up where the runs end.
    """
    distinct: Tensor = values.double().unique(sorted=True)
    if len(distinct) <= count:
        return distinct
    ordered = values.double().sort().values
    sums = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])
    centroids = torch.linspace(float(ordered[0]), float(ordered[-1]), count, dtype=torch.float64)
    runs = torch.tensor([])
    for _ in range(ROUNDS):
        ends = torch.searchsorted(ordered, _edges(centroids), side="right")
        ends = torch.cat([ends.new_zeros(1), ends, ends.new_tensor([len(ordered)])])
        if torch.equal(ends, runs):
            break
        runs, sizes = ends, ends.diff()
        means = sums[ends].diff() / sizes
        # An empty cluster stays where it is.
        centroids = torch.where(sizes > 0, means, centroids)
    return centroids


def _edges(centroids: Tensor) -> Tensor:
    """Return the points [k - 1] half-way between neighbours."""
    return torch.lerp(centroids[:-1], centroids[1:], 0.5)
