"""The arithmetic of transposed convolutions as ordinary ones: which weight goes where.

Every output position of a transposed convolution belongs to one of as many phases as its strides
multiply to, and each phase is an ordinary convolution of the input. All phases together are one
convolution with that many times the channels, and a pixel shuffle.

Source: Shi et al., "Is the deconvolution layer the same as a convolutional layer?", 2016,
section 2; Dumoulin, Visin, "A guide to convolution arithmetic for deep learning", 2016, section 4.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from torch import Tensor, fx

from edgedl.compress.graph.operators.convolution import TransposedConvolution

# Phase, tap of the transposed kernel, tap of the ordinary one.
Tap = tuple[int, int, int]


@dataclass(frozen=True)
class Geometry:
    """The numbers of a transposed convolution, as torch takes them.

    Attributes:
        kernel: height and width of its weight.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    output_padding: tuple[int, int]
    groups: int
    dilation: tuple[int, int]

    @classmethod
    def of(cls, node: fx.Node, weight: Tensor) -> "Geometry":
        """Return the numbers of an ``aten.conv_transpose2d``."""
        view = TransposedConvolution.of(node)
        return cls(
            _pair(weight.shape[2:]),
            _pair(view.stride),
            _pair(view.padding),
            _pair(view.output_padding),
            view.groups,
            _pair(view.dilation),
        )

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What torch takes behind the bias."""
        pairs = (self.stride, self.padding, self.output_padding)
        return (*(list(p) for p in pairs), self.groups, list(self.dilation))

    def axis(self, index: int) -> "Axis":
        """Return what happens along the height (0) or the width (1)."""
        numbers = self.kernel, self.stride, self.padding, self.dilation
        kernel, stride, padding, dilation = (n[index] for n in numbers)
        taps = [
            (phase, tap, (phase + padding - tap * dilation) // stride)
            for phase in range(stride)
            for tap in range(kernel)
            if (phase + padding - tap * dilation) % stride == 0
        ]
        first, last = (end(offset for _, _, offset in taps) for end in (min, max))
        return Axis(first, last, [(phase, tap, offset - first) for phase, tap, offset in taps])

    @property
    def taps(self) -> Iterable[tuple[Tap, Tap]]:
        """What one tap of the transposed kernel is in the ordinary one, down and across."""
        return product(self.axis(0).taps, self.axis(1).taps)


class Axis(NamedTuple):
    """One axis of the ordinary convolution.

    Attributes:
        first: the smallest offset of an input position that it reads.
        last: the largest.
        taps: what the taps of the transposed kernel are in the ordinary one.
    """

    first: int
    last: int
    taps: list[Tap]

    @property
    def window(self) -> int:
        """Size of the ordinary kernel."""
        return self.last - self.first + 1


@dataclass(frozen=True)
class Extent:
    """How large the maps of the ordinary convolution are, along the height and the width.

    Attributes:
        input: positions of what it reads, without margins.
        places: positions of what it writes, of which each holds all phases.
        margins: zeros in front of the input and behind it; negative where it would be cropped.
    """

    input: tuple[int, int]
    places: tuple[int, int]
    margins: tuple[tuple[int, int], tuple[int, int]]

    @classmethod
    def of(cls, geometry: Geometry, before: Sequence[int], after: Sequence[int]) -> "Extent":
        """Return it for a transposed convolution that maps size ``before`` to size ``after``."""
        places = [-(-size // s) for size, s in zip(after, geometry.stride, strict=True)]
        margins = []
        for index in range(2):
            axis = geometry.axis(index)
            margins.append((-axis.first, places[index] - before[index] + axis.last))
        return cls(_pair(before), _pair(places), (margins[0], margins[1]))

    @property
    def symmetric(self) -> bool:
        """Whether the margins are a padding that the convolution itself has."""
        return all(front == back for front, back in self.margins)

    @property
    def padded(self) -> tuple[int, int]:
        """Size of the input with its margins."""
        (top, bottom), (left, right) = self.margins
        return self.input[0] + top + bottom, self.input[1] + left + right


def phases_of(weight: Tensor, geometry: Geometry) -> Tensor:
    """Return the weight of the ordinary convolution.

    Args:
        weight: [C_in, C_out / groups, kernel height, kernel width].
        geometry: of the transposed convolution.

    Returns:
        [C_out * vertical stride * horizontal stride, C_in / groups, window height, window width];
        the channels of a pixel shuffle.
    """
    rows, columns = geometry.axis(0), geometry.axis(1)
    groups = geometry.groups
    grouped = weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2)
    _, outputs, inputs = grouped.shape[:3]
    shape = (groups, outputs, *geometry.stride, inputs, rows.window, columns.window)
    opened = weight.new_zeros(shape)
    for (y, tap_y, row), (x, tap_x, column) in geometry.taps:
        opened[:, :, y, x, :, row, column] = grouped[:, :, :, tap_y, tap_x]
    return opened.reshape(-1, *shape[4:])


def weight_of_phases(opened: Tensor, geometry: Geometry) -> Tensor:
    """Return the transposed convolution's weight, from what ``phases_of`` made of it."""
    groups = geometry.groups
    split = opened.reshape(groups, -1, *geometry.stride, *opened.shape[1:])
    shape = (groups, split.shape[1], split.shape[4], *geometry.kernel)
    grouped = opened.new_zeros(shape)
    for (y, tap_y, row), (x, tap_x, column) in geometry.taps:
        grouped[:, :, :, tap_y, tap_x] = split[:, :, y, x, :, row, column]
    return grouped.transpose(1, 2).reshape(-1, shape[1], *geometry.kernel)


def _pair(numbers: Any) -> tuple[int, int]:
    first, second = (*numbers, *numbers)[:2]
    return int(first), int(second)
