"""What a layer reads: its inputs as columns of a matrix, and their means and covariances."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from edgedl.compress.graph.operators.convolution import Convolution
from edgedl.compress.graph.operators.linear import LINEAR
from edgedl.compress.graph.operators.table import groups_of, row_of
from edgedl.compress.quantize.corrections.layerwise import Layer

# Output positions of a convolution that its moments are taken over, for each of its inputs, and the
# fewest and the most. Eight times as many as inputs leave the moments well conditioned.
POSITIONS_PER_INPUT = 8
FEWEST_POSITIONS = 2**13
MOST_POSITIONS = 2**15


class InputMoments:
    """Means of what a layer reads, float and quantized, and second moments of the latter.

    All sums are of differences to the mean of the first batch. Where inputs hardly vary around a
    large mean, float32 products of the inputs themselves would leave nothing of the covariance.

    Source: Chan, Golub, LeVeque, "Algorithms for computing the sample variance", 1983, section 3
    (shifted data).

    Attributes:
        groups: independent groups of input channels; 1 for a linear layer.
    """

    def __init__(self, layer: Layer, products: bool = True) -> None:
        """Go over the layer's inputs once; without ``products`` only for the means."""
        self.groups = groups_of(layer.node)
        self._products = products
        self._count = 0
        self._shift: Tensor | None = None
        self._sums: list[Tensor] = []
        wanted = POSITIONS_PER_INPUT * layer.weight[0].numel()
        wanted = min(max(wanted, FEWEST_POSITIONS), MOST_POSITIONS)
        share = None if row_of(layer.node) is LINEAR else math.ceil(wanted / len(layer.inputs))
        for exact, rounded in zip(layer.float_inputs, layer.inputs, strict=True):
            self._add(patches(layer, exact, share), patches(layer, rounded, share))

    def _add(self, exact: Tensor, rounded: Tensor) -> None:
        """Add what one batch reads; only the sums of batches need more than float32."""
        self._count += exact.shape[2]
        if self._shift is None:
            self._shift = rounded.mean(2, keepdim=True)
        exact, rounded = exact - self._shift, rounded - self._shift
        sums = [exact.sum(2).double(), rounded.sum(2).double()]
        if self._products:
            sums.append((rounded @ rounded.transpose(1, 2)).double())
        self._sums = [a + b for a, b in zip(self._sums, sums, strict=True)] if self._sums else sums

    def means(self) -> tuple[Tensor, Tensor]:
        """Return the mean inputs, float and quantized, [groups, K] each."""
        if self._shift is None:
            raise ValueError("the layer has read nothing")
        shift = self._shift[:, :, 0].double()
        return shift + self._sums[0] / self._count, shift + self._sums[1] / self._count

    def second_moments(self) -> Tensor:
        """Return the mean products of quantized inputs, [groups, K, K]."""
        _, mean = self.means()
        return self.covariance() + mean[:, :, None] * mean[:, None, :]

    def covariance(self) -> Tensor:
        """Return the covariance of quantized inputs, [groups, K, K]."""
        mean = self._sums[1] / self._count
        return self._sums[2] / self._count - mean[:, :, None] * mean[:, None, :]


def patches(layer: Layer, x: Tensor, count: int | None = None) -> Tensor:
    """Return what output positions of a layer read: [groups, K, positions].

    Args:
        layer: convolution or linear layer.
        x: its input; samples of a batch are looked at in the same places.
        count: of positions, at least that many if there are, drawn at random, the same ones each
            time; None takes all.
    """
    drawn = torch.Generator().manual_seed(0)
    if row_of(layer.node) is LINEAR:
        rows = x.reshape(-1, x.shape[-1])
        if count is not None and count < len(rows):
            rows = rows[torch.randperm(len(rows), generator=drawn)[:count]]
        return rows.t()[None]
    window = _Window.of(layer, x)
    places = torch.arange(window.rows * window.columns)
    if count is not None:
        share = math.ceil(count / len(x))
        places = torch.randperm(len(places), generator=drawn)[:share]
    taps = [
        window.read(places, i, j) for i in range(window.kernel[0]) for j in range(window.kernel[1])
    ]
    # [N, places, C, taps] -> [N * places, groups, C / groups * taps]
    read = torch.stack(taps, dim=3).reshape(-1, groups_of(layer.node), layer.weight[0].numel())
    return read.movedim(0, 2)


@dataclass(frozen=True)
class _Window:
    """Where the outputs of a convolution look in its input [N, C, H, W].

    Attributes:
        margins: zeros before the first row, and before the first column.
        rows, columns: of the output.
    """

    input: Tensor
    margins: list[int]
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
        if len(kernel) == 1:
            x, margins = x[:, :, None], [(0, 0), *margins]
            kernel, stride, dilation = [1, *kernel], [1, *stride], [1, *dilation]
        sizes = [
            (n + sum(margin) - d * (k - 1) - 1) // s + 1
            for n, margin, k, s, d in zip(
                x.shape[2:], margins, kernel, stride, dilation, strict=True
            )
        ]
        return cls(x, [before for before, _ in margins], kernel, stride, dilation, *sizes)

    def read(self, places: Tensor, i: int, j: int) -> Tensor:
        """Return what some outputs, by number, read at row i and column j of their kernel.

        Returns:
            float32 [N, places, C]; zeros in the margins.
        """
        height, width = self.input.shape[2:]
        row = places // self.columns * self.stride[0] + i * self.dilation[0] - self.margins[0]
        column = places % self.columns * self.stride[1] + j * self.dilation[1] - self.margins[1]
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        where = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
        # Channels last, a place is read at once.
        found = self.input.movedim(1, 3).flatten(1, 2).index_select(1, where)
        return found if bool(inside.all()) else found * inside[:, None]


def _pair(value: object, count: int) -> list[int]:
    if isinstance(value, int):
        return [value] * count
    numbers = [int(v) for v in value]  # type: ignore[attr-defined]
    return numbers * count if len(numbers) == 1 else numbers
