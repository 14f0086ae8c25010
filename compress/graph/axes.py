"""Axes of tensors as expressions over sets of channels, and unification of them.

Channels that can only be removed together are one ``Axis`` without parts. A flattened feature map
is a product of axes, a concatenation a sum of them. Operators say which axes are the same; what is
left once all have spoken are the groups that pruning chooses from.

Source: the idea of dependency groups is of Fang et al., "DepGraph: towards any structural pruning",
2023; here the groups are solved for by unification (Robinson, "A machine-oriented logic based on
the resolution principle", 1965, section 5.7) instead of being walked along the graph.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["leaf", "product", "sum"]


class Axis:
    """An axis of a tensor: a leaf, a product of axes in row-major order, or a sum of them.

    Attributes:
        size: positions along it.
        kind: what it is made of.
        parts: the factors or terms; none of a leaf.
        frozen: why no position of it can be removed; empty where they can.
    """

    def __init__(self, size: int, frozen: str = "") -> None:
        """Make a leaf."""
        self.size = size
        self.kind: Kind = "leaf"
        self.parts: tuple[Axis, ...] = ()
        self.frozen = frozen
        self._same: Axis | None = None

    @classmethod
    def product(cls, factors: Sequence["Axis"]) -> "Axis":
        """Return the axis of a flattened block; factors of size 1 are left out."""
        kept = [axis for axis in factors if axis.size != 1]
        if len(kept) == 1:
            return kept[0]
        made = cls(1)
        for axis in kept:
            made.size *= axis.size
        return made._split("product", kept) if kept else made

    @classmethod
    def sum(cls, terms: Sequence["Axis"]) -> "Axis":
        """Return the axis of a concatenation; empty terms are left out."""
        kept = [axis for axis in terms if axis.size]
        return kept[0] if len(kept) == 1 else cls(sum(a.size for a in kept))._split("sum", kept)

    def root(self) -> "Axis":
        """Return the axis that stands for all that were found to be the same."""
        axis = self
        while axis._same is not None:
            axis = axis._same
        return axis

    def leaves(self) -> Iterator["Axis"]:
        """Yield the leaves that it is made of, in order, each as often as it occurs."""
        axis = self.root()
        if axis.kind == "leaf":
            yield axis
        for part in axis.parts:
            yield from part.leaves()

    def freeze(self, reason: str) -> None:
        """Keep every position."""
        for leaf in self.leaves():
            leaf.frozen = leaf.frozen or reason

    def _split(self, kind: Kind, parts: Sequence["Axis"]) -> "Axis":
        self.kind, self.parts = kind, tuple(parts)
        if self.frozen:
            for part in parts:
                part.freeze(self.frozen)
        return self


def unify(a: Axis, b: Axis, where: str) -> None:
    """Make two axes of one size the same: what is removed from one is removed from the other.

    Composites of other shapes are split further until they fit; where no splitting helps, both
    are frozen, since ``where`` joins channels that have no common arrangement.
    """
    a, b = a.root(), b.root()
    if a is b:
        return
    if a.size != b.size:
        raise ValueError(f"{where} joins an axis of {a.size} with one of {b.size}")
    if a.kind != "leaf" and b.kind != "leaf":
        _unify_parts(a, b, where)
        return
    leaf, other = (a, b) if a.kind == "leaf" else (b, a)
    if any(part is leaf for part in other.leaves()):
        return
    leaf._same = other
    if leaf.frozen:
        other.freeze(leaf.frozen)


def _unify_parts(a: Axis, b: Axis, where: str) -> None:
    kind = a.kind
    if kind != b.kind:
        _freeze_all([a, b], where)
        return
    left, right = list(a.parts), list(b.parts)
    while left and right:
        x, y = (_first(pieces, kind) for pieces in (left, right))
        if x.size == y.size:
            unify(x, y, where)
            continue
        (big, rest), (small, _) = (
            ((x, left), (y, right)) if x.size > y.size else ((y, right), (x, left))
        )
        remainder = _split_leaf(big, small, kind, where)
        if remainder is None:
            _freeze_all([x, y, *left, *right], where)
            return
        rest.insert(0, remainder)


def _first(pieces: list[Axis], kind: Kind) -> Axis:
    """Take the first piece that is not itself a composite of that kind."""
    axis = pieces.pop(0).root()
    while axis.kind == kind:
        pieces[:0] = axis.parts[1:]
        axis = axis.parts[0].root()
    return axis


def _split_leaf(big: Axis, small: Axis, kind: Kind, where: str) -> Axis | None:
    """Let a leaf begin with another axis; return what follows it, None if it cannot be split."""
    if big.kind != "leaf" or (kind == "product" and big.size % small.size):
        return None
    rest = Axis(big.size // small.size if kind == "product" else big.size - small.size)
    first = Axis(small.size)
    big._split(kind, (first, rest))
    unify(first, small, where)
    return rest


def _freeze_all(axes: Sequence[Axis], where: str) -> None:
    for axis in axes:
        axis.freeze(f"{where} joins channels in two arrangements")


def kept_positions(axis: Axis, kept: Mapping[Axis, Tensor]) -> Tensor:
    """Return the positions int64 of an axis that stay, if of some leaves only ``kept`` stay.

    >>> first, second = Axis(2), Axis(3)
    >>> kept_positions(Axis.product([first, second]), {second: torch.tensor([0, 2])}).tolist()
    [0, 2, 3, 5]
    """
    axis = axis.root()
    if axis.kind == "leaf":
        return kept.get(axis, torch.arange(axis.size))
    if axis.kind == "product":
        found = torch.zeros(1, dtype=torch.int64)
        for part in axis.parts:
            found = (found[:, None] * part.size + kept_positions(part, kept)).flatten()
        return found
    starts = torch.tensor([0, *(part.size for part in axis.parts)]).cumsum(0).tolist()
    return torch.cat(
        [kept_positions(p, kept) + start for p, start in zip(axis.parts, starts, strict=False)]
    )


def channels_of(axis: Axis, leaf: Axis) -> Tensor:
    """Return for every position of an axis which channel of a leaf it belongs to, or -1.

    >>> first, second = Axis(2), Axis(3)
    >>> channels_of(Axis.product([first, second]), first).tolist()
    [0, 0, 0, 1, 1, 1]
    """
    axis = axis.root()
    if axis is leaf:
        return torch.arange(axis.size)
    if axis.kind == "leaf":
        return torch.full((axis.size,), -1)
    if axis.kind == "sum":
        return torch.cat([channels_of(part, leaf) for part in axis.parts])
    found = torch.full((1,), -1)
    for part in axis.parts:
        inner = channels_of(part, leaf).expand(len(found), -1)
        found = torch.where(inner >= 0, inner, found[:, None]).flatten()
    return found
