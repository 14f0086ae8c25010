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
        mixing: operators that compute a position of an axis from others, or from no rule that is
            known, so that no position of it can go: node -> why.
    """

    def __init__(self) -> None:
        """Start without values."""
        self.values: dict[fx.Node, Any] = {}
        self.mixing: dict[fx.Node, str] = {}
        # What the rule of the operator at hand has spoken of.
        self._said: set[Axis] = set()

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
        self.speak_of([*left, *right])
        for a, b in zip(left, right, strict=True):
            unify(a, b, f"'{layer_name(where)}'")

    def join_broadcast(self, where: fx.Node, left: Sequence[Axis], right: Sequence[Axis]) -> None:
        """Make axes the same from the last backwards, but for those that are repeated."""
        self.speak_of([*left, *right])
        for a, b in zip(reversed(left), reversed(right), strict=False):
            if a.size == b.size:
                unify(a, b, f"'{layer_name(where)}'")

    def freeze(self, groups: Sequence[Any], reason: str) -> None:
        """Keep every position of some axes, or of lists of axes."""
        for item in groups:
            if isinstance(item, Axis):
                self.speak_of([item])
                item.freeze(reason)
            else:
                self.freeze(item, reason)

    def slide(self, where: fx.Node, groups: Sequence[Any]) -> None:
        """Keep every position of axes that the windows of an operator move along.

        Without one, its neighbours would become neighbours of each other.
        """
        reason = f"'{_called(where)}' slides over it"
        self.mixing[where] = reason
        self.freeze(groups, reason)

    def pin_unsaid(self, where: fx.Node) -> None:
        """Keep every position of those axes around an operator that its rule did not speak of."""
        around = [axes for n in (where, *where.all_input_nodes) for axes in self.results(n)]
        left = [a for own in around for a in own if a.size > 1 and a not in self._said]
        if left:
            reason = f"what '{_called(where)}' does with it is not known"
            self.mixing[where] = reason
            self.freeze(left, reason)

    def forget(self) -> None:
        """Begin with the next operator."""
        self._said.clear()

    def speak_of(self, axes: Sequence[Axis]) -> None:
        """Say that nothing is to be joined or kept of some axes."""
        for axis in axes:
            self._said.add(axis)
            self.speak_of(axis.parts)


def _called(node: fx.Node) -> str:
    return layer_name(node) or node.name


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
