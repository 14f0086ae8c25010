"""Axes of the values of a graph as its operators join them, and their sizes after a cut."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from torch import Tensor, fx

from edgedl.compress.graph.axes import Axis, kept_positions, unify
from edgedl.compress.graph.layers import layer_name

Kept = Mapping[Axis, Tensor]


class JoinedAxes:
    """Axes of values; those that are one axis have one root.

    Attributes:
        values: node -> its axes; a list of lists for an operator with several results.
    """

    def __init__(self) -> None:
        """Start without values."""
        self.values: dict[fx.Node, Any] = {}

    def of(self, argument: Any) -> list[Axis]:
        """Return the axes of an operator's argument; a number has none."""
        found = self.values.get(argument) if isinstance(argument, fx.Node) else None
        return [] if found is None else list(found)

    def results(self, argument: Any) -> list[list[Axis]]:
        """Return the axes of each result of an operator that has several, or of its only one."""
        found: Any = self.of(argument)
        return found if found and isinstance(found[0], list) else [found]

    def join(self, where: fx.Node, left: Sequence[Axis], right: Sequence[Axis]) -> None:
        """Make axes the same, pair by pair."""
        for a, b in zip(left, right, strict=True):
            unify(a, b, f"'{layer_name(where)}'")

    def join_broadcast(self, where: fx.Node, left: Sequence[Axis], right: Sequence[Axis]) -> None:
        """Make axes the same from the last backwards, but for those that are repeated."""
        for a, b in zip(reversed(left), reversed(right), strict=False):
            if a.size == b.size:
                unify(a, b, f"'{layer_name(where)}'")

    def freeze(self, groups: Sequence[Any], reason: str) -> None:
        """Keep every position of some axes, or of lists of axes."""
        for item in groups:
            if isinstance(item, Axis):
                item.freeze(reason)
            else:
                self.freeze(item, reason)


class SizesAfterCut:
    """Sizes of axes after part of their channels is cut."""

    def __init__(self, axes: JoinedAxes, kept: Kept) -> None:
        """Take the axes, and leaf -> the channels int64 that stay, in ascending order."""
        self._axes, self._kept = axes, kept

    def new(self, axis: Axis) -> int:
        """Return the new size of an axis."""
        return len(kept_positions(axis, self._kept))

    def of(self, node: Any) -> list[int]:
        """Return the new size of each axis of a node."""
        return [self.new(axis) for axis in self._axes.of(node)]

    def parts(self, node: Any, dim: int) -> list[int]:
        """Return the new size of one axis of each result of an operator."""
        return [self.new(axes[dim]) for axes in self._axes.results(node)]

    def changed(self, node: Any, dim: int) -> bool:
        """Say whether an axis of a node gets smaller."""
        axis = self.axis(node, dim)
        return self.new(axis) != axis.size

    def position(self, axis: Axis, old: int) -> int:
        """Return how many of the first ``old`` positions of an axis stay."""
        return int((kept_positions(axis, self._kept) < old).sum())

    def axis(self, node: Any, dim: int) -> Axis:
        """Return an axis of a node."""
        return self._axes.of(node)[dim]

    def share(self, axis: Axis) -> Fraction:
        """Return which share of an axis stays."""
        return Fraction(self.new(axis), axis.size)

    def resized(self, value: Any, axes: Sequence[Any]) -> Any:
        """Return a shape-only tensor, or several, with the sizes after the cut."""
        if isinstance(value, Tensor):
            shape = [self._rescaled(s, axis) for s, axis in zip(value.shape, axes, strict=True)]
            return value.new_empty(shape)
        if isinstance(value, (list, tuple)):
            return [self.resized(v, a) for v, a in zip(value, axes, strict=True)]
        return value

    def _rescaled(self, size: Any, axis: Axis) -> Any:
        """Return the size of an axis after the cut; of a free one its other factors change."""
        share = self.share(axis)
        return size if share == 1 else size * share.numerator // share.denominator
