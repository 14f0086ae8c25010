"""How many channels each group keeps."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from edgedl.compress.graph.operators import WEIGHTED, aten
from edgedl.compress.prune.axes import Axis
from edgedl.compress.prune.channel_groups import ChannelGroup
from edgedl.compress.prune.tensor_axes import TensorAxes, size_of

# Leaf -> channels that stay.
Counts = Mapping[Axis, int]


def aligned(wanted: float, size: int, multiple: int) -> int:
    """Return the nearest number of channels that kernels like, at least one step of them.

    A group that is not larger than one step, or no multiple of it, shrinks to the nearest number.

    >>> aligned(11.2, 16, 8), aligned(12.1, 16, 8), aligned(1, 64, 8), aligned(3, 6, 8)
    (8, 16, 8, 3)
    """
    step = _step(size, multiple)
    return min(size, max(step, round(wanted / step) * step))


def _step(size: int, multiple: int) -> int:
    return multiple if size > multiple else 1


def uniform_widths(groups: Sequence[ChannelGroup], ratio: float, multiple: int) -> dict[Axis, int]:
    """Return the widths if every group loses the same share of its channels."""
    return {g.axis: aligned(g.size * (1 - ratio), g.size, multiple) for g in groups}


def ranked_widths(
    groups: Sequence[ChannelGroup],
    scores: Mapping[Axis, Tensor],
    macs: "MacCounter",
    ratio: float,
    multiple: int,
    floor: float = 0.1,
) -> dict[Axis, int]:
    """Return the widths if the least important channels of the whole network go.

    Blocks of ``multiple`` channels go in the order of their mean score until the network has lost
    ``ratio`` of its multiply-accumulates; a group keeps at least ``floor`` of its channels.

    Args:
        groups: that can be pruned.
        scores: leaf -> importance float32 [channels], comparable between groups.
        macs: of the network.
        ratio: share of the multiply-accumulates to remove.
        multiple: of channels that kernels like.
        floor: share of its channels that every group keeps.
    """
    widths = {g.axis: g.size for g in groups}
    ranked = {axis: s.sort().values for axis, s in scores.items()}
    whole = macs.count({})
    least = {g.axis: aligned(g.size * floor, g.size, multiple) for g in groups}
    while macs.count(widths) > (1 - ratio) * whole:
        blocks = []
        for axis, width in widths.items():
            smaller = aligned(
                width - 1 if axis.size <= multiple else width - multiple, axis.size, multiple
            )
            if smaller < width and smaller >= least[axis]:
                gone = ranked[axis][axis.size - width : axis.size - smaller]
                blocks.append((float(gone.mean()), axis, smaller))
        if not blocks:
            break
        _, axis, smaller = min(blocks, key=lambda block: block[0])
        widths[axis] = smaller
    return widths


class MacCounter:
    """Multiply-accumulates of one sample's forward pass, for any widths."""

    def __init__(self, axes: TensorAxes) -> None:
        """Find the operators that multiply."""
        self._terms: list[tuple[list[Axis], int]] = []
        for node in axes.graph.graph.nodes:
            if node.target in WEIGHTED or node.target is aten.conv_transpose2d.input:
                weight = axes.of(node.args[1])
                transposed = node.target is aten.conv_transpose2d.input
                where = node.args[0].meta["val"] if transposed else node.meta["val"]
                places = (
                    where.shape[1:-1] if node.target is aten.linear.default else where.shape[2:]
                )
                self._terms.append((weight, _product([size_of(p) for p in places])))

    def count(self, widths: Counts) -> int:
        """Return the multiply-accumulates if some groups have other widths."""
        return sum(n * _product([new_size(a, widths) for a in w]) for w, n in self._terms)


def new_size(axis: Axis, widths: Counts) -> int:
    """Return the size of an axis whose leaves have other widths."""
    axis = axis.root()
    if axis.kind == "leaf":
        return widths.get(axis, axis.size)
    sizes = [new_size(part, widths) for part in axis.parts]
    return sum(sizes) if axis.kind == "sum" else _product(sizes)


def most_important(scores: Tensor, width: int) -> Tensor:
    """Return the positions int64 [width] of the highest scores, in ascending order."""
    return torch.topk(scores, width).indices.sort().values


def _product(sizes: Sequence[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total
