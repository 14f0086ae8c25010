"""How many channels each group keeps."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from edgedl.compress.graph.axes import Axis
from edgedl.compress.graph.cuts.channel_groups import ChannelGroup
from edgedl.runtime.errors import BadInputError

# Share of its channels that every group keeps.
FLOOR = 0.1

# Leaf -> channels that stay.
Counts = Mapping[Axis, int]


def aligned(wanted: float, size: int, step: int) -> int:
    """Return the nearest number of channels that kernels like, at least one step of them.

    A group that is not larger than one step stays whole: kernels pad what is narrower, so that
    less of it is not faster, and often slower.

    >>> aligned(11.2, 16, 8), aligned(12.1, 16, 8), aligned(1, 64, 8), aligned(3, 6, 8)
    (8, 16, 8, 6)
    """
    return min(size, max(step, round(wanted / step) * step))


def narrower(width: int, size: int, step: int, floor: float = FLOOR) -> int | None:
    """Return the next smaller width of a group, None if it would fall below its floor.

    >>> narrower(16, 32, 8), narrower(8, 32, 8), narrower(3, 6, 8)
    (8, None, None)
    """
    smaller = (width - 1) // step * step
    return smaller if smaller >= aligned(size * floor, size, step) else None


def uniform_widths(groups: Sequence[ChannelGroup], ratio: float, multiple: int) -> dict[Axis, int]:
    """Return the widths if every group loses the same share of its channels.

    Raises:
        BadInputError: nothing would be left of a group that is wider than one step.
    """
    for group in groups:
        if group.size > group.step(multiple) and round(group.size * (1 - ratio)) < 1:
            raise BadInputError(
                f"ratio {ratio} would leave none of the {group.size} channels of '{group.name}': "
                "lower it, or keep that group"
            )
    return {g.axis: aligned(g.size * (1 - ratio), g.size, g.step(multiple)) for g in groups}


def narrowing_path(
    groups: Sequence[ChannelGroup],
    scores: Mapping[Axis, Tensor],
    prices: Mapping[Axis, float],
    multiple: int,
) -> Iterator[dict[Axis, int]]:
    """Yield ever narrower widths of a network, its own first.

    Each differs from the one before by a block of channels, one step of its group: the block of
    least mean score per price. Blocks that cost nothing stay.

    Args:
        groups: that can be pruned.
        scores: leaf -> importance float32 [channels], comparable between groups.
        prices: leaf -> what one of its channels costs.
        multiple: of channels that kernels like.
    """
    widths = {g.axis: g.size for g in groups}
    steps = {g.axis: g.step(multiple) for g in groups}
    ranked = {axis: s.sort().values for axis, s in scores.items()}
    while True:
        yield dict(widths)
        blocks: list[tuple[float, int, Axis, int]] = []
        for index, (axis, width) in enumerate(widths.items()):
            smaller = narrower(width, axis.size, steps[axis])
            if prices[axis] > 0 and smaller is not None:
                gone = ranked[axis][axis.size - width : axis.size - smaller]
                blocks.append((float(gone.mean()) / prices[axis], index, axis, smaller))
        if not blocks:
            return
        _, _, axis, smaller = min(blocks)
        widths[axis] = smaller


def widening_path(
    groups: Sequence[ChannelGroup],
    scores: Mapping[Axis, Tensor],
    prices: Mapping[Axis, float],
    multiple: int,
    narrow: Mapping[Axis, int],
    budget: float,
) -> Iterator[dict[Axis, int]]:
    """Yield ever wider widths of a network, ``narrow`` first, until nothing more can be paid for.

    Each gives back a block of channels: of those that what is left of the budget pays for, the one
    of highest mean score per price.

    Args:
        groups: that can be pruned.
        scores: leaf -> importance float32 [channels], comparable between groups.
        prices: leaf -> what one of its channels costs.
        multiple: of channels that kernels like.
        narrow: leaf -> channels, on the path of ``narrowing_path``.
        budget: what all that is given back may cost.
    """
    widths = dict(narrow)
    steps = {g.axis: g.step(multiple) for g in groups}
    ranked = {axis: s.sort().values for axis, s in scores.items()}
    while True:
        yield dict(widths)
        blocks: list[tuple[float, int, Axis, int]] = []
        for index, (axis, width) in enumerate(widths.items()):
            wider = min(axis.size, width + steps[axis])
            cost = prices[axis] * (wider - width)
            if wider > width and cost <= budget:
                back = ranked[axis][axis.size - wider : axis.size - width]
                blocks.append((float(back.mean()) / prices[axis], -index, axis, wider))
        if not blocks:
            return
        _, _, axis, wider = max(blocks, key=lambda block: block[:2])
        budget -= prices[axis] * (wider - widths[axis])
        widths[axis] = wider


def ranked_widths(
    groups: Sequence[ChannelGroup],
    scores: Mapping[Axis, Tensor],
    macs: Callable[[Counts], int],
    ratio: float,
    multiple: int,
) -> dict[Axis, int]:
    """Return the widths if the least important channels of the whole network go.

    They go until the network has lost ``ratio`` of its multiply-accumulates.

    Raises:
        BadInputError: it cannot lose as many.
    """
    whole = macs({})
    most = (1 - ratio) * whole
    widths: dict[Axis, int] = {}
    prices = {g.axis: 1.0 for g in groups}
    for widths in narrowing_path(groups, scores, prices, multiple):
        if macs(widths) <= most:
            return widths
    raise BadInputError(
        f"at most {1 - macs(widths) / whole:.3f} of the multiply-accumulates can go in "
        f"multiples of {multiple} channels, the ratio is {ratio}: lower either"
    )


def new_size(axis: Axis, widths: Counts) -> int:
    """Return the size of an axis whose leaves have other widths."""
    axis = axis.root()
    if axis.kind == "leaf":
        return widths.get(axis, axis.size)
    sizes = [new_size(part, widths) for part in axis.parts]
    return sum(sizes) if axis.kind == "sum" else math.prod(sizes)


def most_important(scores: Tensor, width: int) -> Tensor:
    """Return the positions int64 [width] of the highest scores, in ascending order."""
    return torch.topk(scores, width).indices.sort().values
