"""What a layer reads: its inputs as columns of a matrix, and their means and covariances."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from edgedl.compress.graph.operators.convolution import Convolution
from edgedl.compress.graph.operators.linear import LINEAR
from edgedl.compress.graph.operators.table import groups_of, row_of
from edgedl.compress.quantize.corrections.layerwise import Layer

# Positions of a feature map that are looked at in every batch.
POSITIONS = 2**12


class InputMoments:
    """Means of what a layer reads, float and quantized, and second moments of the latter.

    Attributes:
        groups: independent groups of input channels; 1 for a linear layer.
    """

    def __init__(self, layer: Layer, products: bool = True) -> None:
        """Go over the layer's inputs once; without ``products`` only for the means."""
        self.groups = groups_of(layer.node)
        self._products = products
        self._count = 0
        self._sums: list[Tensor] = []
        for exact, rounded in zip(layer.float_inputs, layer.inputs, strict=True):
            self._add(patches(layer, exact).double(), patches(layer, rounded).double())

    def _add(self, exact: Tensor, rounded: Tensor) -> None:
        self._count += exact.shape[2]
        sums = [exact.sum(2), rounded.sum(2)]
        if self._products:
            sums.append(rounded @ rounded.transpose(1, 2))
        self._sums = [a + b for a, b in zip(self._sums, sums, strict=True)] if self._sums else sums

    def means(self) -> tuple[Tensor, Tensor]:
        """Return the mean inputs, float and quantized, [groups, K] each."""
        return self._sums[0] / self._count, self._sums[1] / self._count

    def second_moments(self) -> Tensor:
        """Return the mean products of quantized inputs, [groups, K, K]."""
        return self._sums[2] / self._count

    def covariance(self) -> Tensor:
        """Return the covariance of quantized inputs, [groups, K, K]."""
        _, mean = self.means()
        return self.second_moments() - mean[:, :, None] * mean[:, None, :]


def patches(layer: Layer, x: Tensor) -> Tensor:
    """Return what output positions of a layer read: [groups, K, positions].

    Of feature maps ``POSITIONS`` are looked at, drawn at random, the same ones each time.
    """
    if row_of(layer.node) is LINEAR:
        return x.reshape(-1, x.shape[-1]).t()[None]
    window = _Window.of(layer, x)
    total = len(x) * window.rows * window.columns
    drawn = torch.randperm(total, generator=torch.Generator().manual_seed(0))[:POSITIONS]
    sample, place = drawn // (window.rows * window.columns), drawn % (window.rows * window.columns)
    top = place // window.columns * window.stride[0]
    left = place % window.columns * window.stride[1]
    channels_last = window.padded.movedim(1, 3)
    taps = [
        channels_last[sample, top + i * window.dilation[0], left + j * window.dilation[1]]
        for i in range(window.kernel[0])
        for j in range(window.kernel[1])
    ]
    groups = groups_of(layer.node)
    read = torch.stack(taps, dim=2).view(len(drawn), groups, -1)
    return read.movedim(0, 2)


@dataclass(frozen=True)
class _Window:
    """Where the outputs of a convolution look in its padded input [N, C, H, W]."""

    padded: Tensor
    kernel: list[int]
    stride: list[int]
    dilation: list[int]
    rows: int
    columns: int

    @classmethod
    def of(cls, layer: Layer, x: Tensor) -> "_Window":
        view, kernel = Convolution.of(layer.node), list(layer.weight.shape[2:])
        stride, dilation = (_pair(given, len(kernel)) for given in (view.stride, view.dilation))
        if view.padding == "same":
            totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
            margins = [(total // 2, total - total // 2) for total in totals]
        else:
            numbers = 0 if view.padding == "valid" else view.padding
            margins = [(p, p) for p in _pair(numbers, len(kernel))]
        x = F.pad(x, [side for margin in reversed(margins) for side in margin])
        if len(kernel) == 1:
            x, kernel, stride, dilation = x[:, :, None], [1, *kernel], [1, *stride], [1, *dilation]
        sizes = [
            (n - d * (k - 1) - 1) // s + 1
            for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
        ]
        return cls(x, kernel, stride, dilation, *sizes)


def _pair(value: object, count: int) -> list[int]:
    if isinstance(value, int):
        return [value] * count
    numbers = [int(v) for v in value]  # type: ignore[attr-defined]
    return numbers * count if len(numbers) == 1 else numbers
