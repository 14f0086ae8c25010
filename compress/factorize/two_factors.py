"""A weight as the product of two, by its singular values."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Share of the energy that is rounding: what float32 makes of a product of lower rank.
ROUNDING = 1e-12


@dataclass(frozen=True)
class TwoFactors:
    """The singular value decomposition of a weight [C_out, K], K all that an output reads.

    Attributes:
        outputs: left singular vectors, float64 [C_out, n], n = min(C_out, K).
        values: singular values in descending order, float64 [n].
        inputs: right singular vectors, float64 [n, K].
        shape: of the weight.
    """

    outputs: Tensor
    values: Tensor
    inputs: Tensor
    shape: torch.Size

    @classmethod
    def of(cls, weight: Tensor) -> "TwoFactors":
        """Decompose a weight [C_out, ...]."""
        matrix = weight.detach().double().flatten(1)
        outputs, values, inputs = torch.linalg.svd(matrix, full_matrices=False)
        return cls(outputs, values, inputs, weight.shape)

    def rank(self, energy: float) -> int:
        """Return how many singular values hold a share of the energy, at least 1.

        Source: Denton et al., "Exploiting linear structure within convolutional networks for
        efficient evaluation", 2014, section 3.2.1: the squared error of a truncation is the sum
        of the squares of the singular values that go (Eckart, Young, 1936).

        Args:
            energy: share of the sum of squared singular values, above 0, at most 1.
        """
        squares = self.values.square()
        allowed = (1 - energy + ROUNDING) * squares.sum()
        # What goes if the first 0, 1, 2, ... values stay.
        gone = torch.cat([squares.flip(0).cumsum(0).flip(0), squares.new_zeros(1)])
        return max(1, int((gone > allowed).sum()))

    def energy(self, rank: int) -> float:
        """Return the share of the energy that the first ``rank`` singular values hold."""
        squares = self.values.square()
        whole = float(squares.sum())
        return float(squares[:rank].sum()) / whole if whole else 1.0

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        """Return the weights of the two layers: float32 [rank, ...], then [C_out, rank, 1, ...].

        Both get the square root of the singular values, so that neither has larger weights.
        """
        root = self.values[:rank].sqrt()
        first = (root[:, None] * self.inputs[:rank]).reshape(rank, *self.shape[1:])
        second = self.outputs[:, :rank] * root
        ones = (1,) * (len(self.shape) - 2)
        second = second.reshape(self.shape[0], rank, *ones)
        return first.float().contiguous(), second.float().contiguous()


def largest_saving_rank(shape: torch.Size) -> int:
    """Return the largest rank at which two layers multiply less than one with this weight.

    >>> largest_saving_rank(torch.Size([8, 8])), largest_saving_rank(torch.Size([16, 4, 3, 3]))
    (3, 11)
    """
    inputs = math.prod(shape[1:])
    return (math.prod(shape) - 1) // (inputs + shape[0])
