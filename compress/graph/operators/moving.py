"""What gives the values of a tensor other places, or repeats them."""

import math
import operator
from collections.abc import Collection, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import fx

from edgedl.compress.graph.axes import Axis
from edgedl.compress.graph.joined_axes import JoinedAxes, SizesAfterCut
from edgedl.compress.graph.operators.operator import (
    Operator,
    Ranges,
    argument,
    aten,
    first_input,
    set_argument,
)


def numbers(given: Any) -> list[int]:
    """Return the numbers of an argument that is one number or several; none of None."""
    if given is None:
        return []
    return [int(d) for d in (given if isinstance(given, (list, tuple)) else [given])]


def without(axes: Sequence[Axis], dims: Collection[int]) -> list[Axis]:
    """Return the other axes."""
    return [axis for d, axis in enumerate(axes) if d not in dims]


def _nothing(axes: JoinedAxes, node: fx.Node) -> None:
    """A size is a number: it has no axes."""


def _everywhere(axes: JoinedAxes, node: fx.Node) -> None:
    """Every position is like every other; what only lends its type stays what it is."""
    axes.speak_of(axes.of(node))
    axes.speak_of(axes.of(first_input(node)))


def _reshape(axes: JoinedAxes, node: fx.Node) -> None:
    """Runs of axes with the same number of positions are the same, in row-major order."""
    left, right = axes.of(first_input(node)), axes.of(node)
    while left or right:
        taken, made = _take(left), _take(right)
        while (a := _count(taken)) != (b := _count(made)):
            side, source = (taken, left) if a < b else (made, right)
            side.append(source.pop(0))
        axes.join(node, [Axis.product(taken)], [Axis.product(made)])


def _take(axes: list[Axis]) -> list[Axis]:
    return [axes.pop(0)] if axes else []


def _count(axes: list[Axis]) -> int:
    return math.prod(axis.size for axis in axes)


def _resize_shape(
    sizes: SizesAfterCut, before: fx.Node, after: fx.Node, name: str, first: int = 0
) -> None:
    """Write new numbers for sizes that are written out, and factors of free ones; -1 stays."""
    new = sizes.of(before)
    changed = list(argument(after, name))
    for d, size in enumerate(argument(before, name)):
        if not isinstance(size, int):
            changed[d] = _rescale(after, changed[d], sizes.share(sizes.axis(before, first + d)))
        elif size > 0:
            changed[d] = new[first + d]
    set_argument(after, name, changed)


def _resize_unflattened(sizes: SizesAfterCut, before: fx.Node, after: fx.Node) -> None:
    first = int(argument(before, "dim")) % len(sizes.of(first_input(before)))
    _resize_shape(sizes, before, after, "sizes", first)


def _rescale(reader: fx.Node, size: fx.Node, share: Fraction) -> fx.Node:
    """Return the node of a free size after the cut, new where factors of it are channels."""
    if share == 1:
        return size
    graph = reader.graph
    with graph.inserting_before(reader):
        many = graph.call_function(operator.mul, (size, share.numerator))
        return graph.call_function(operator.floordiv, (many, share.denominator))


def order_of(node: fx.Node, dimensions: int) -> list[int]:
    """Return which axis of the input each of the result is, of an operator that reorders them.

    It is read off a tensor without data whose axes have their number for a size.
    """
    x = torch.empty(tuple(range(dimensions)), device="meta")
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda _: x)
    order: torch.Size = node.target(*args, **kwargs).shape  # type: ignore[operator]
    return list(order)


def _permute(axes: JoinedAxes, node: fx.Node) -> None:
    """The axes in another order."""
    x = axes.of(first_input(node))
    axes.join(node, [x[d] for d in order_of(node, len(x))], axes.of(node))


def _unsqueeze(axes: JoinedAxes, node: fx.Node) -> None:
    """An axis of size 1 comes in."""
    result = axes.of(node)
    del result[int(argument(node, "dim")) % len(result)]
    axes.join(node, axes.of(first_input(node)), result)


def _squeeze(axes: JoinedAxes, node: fx.Node) -> None:
    """Axes of size 1 go."""
    x = axes.of(first_input(node))
    every = node.target is aten.squeeze.default
    gone = {d % len(x) for d in (range(len(x)) if every else numbers(argument(node, "dim")))}
    kept = [axis for d, axis in enumerate(x) if d not in gone or axis.size != 1]
    axes.join(node, kept, axes.of(node))


def _expand(axes: JoinedAxes, node: fx.Node) -> None:
    """Axes of size 1 are repeated; a repeated axis is nobody's channels."""
    axes.join_broadcast(node, axes.of(first_input(node)), axes.of(node))


def _expand_as(axes: JoinedAxes, node: fx.Node) -> None:
    """Axes of size 1 are repeated as often as another tensor has positions."""
    _expand(axes, node)
    axes.join(node, axes.of(argument(node, "other")), axes.of(node))


def _repeat(axes: JoinedAxes, node: fx.Node, name: str) -> None:
    """What is repeated keeps its size."""
    x, result = axes.of(first_input(node))[::-1], axes.of(node)[::-1]
    counts = [*reversed(argument(node, name)), *[1] * len(x)]
    for own, repeated, count in zip(x, result, counts, strict=False):
        if count == 1:
            axes.join(node, [own], [repeated])
        else:
            axes.freeze([own, repeated], f"'{node.name}' repeats it")


def _along(axes: JoinedAxes, node: fx.Node, name: str) -> None:
    """What depends on the order of positions keeps them: flip, roll, cumulative sums."""
    axes.join(node, axes.of(first_input(node)), axes.of(node))
    dims = numbers(argument(node, name))
    moved = [axes.of(node)[d] for d in dims] if dims else axes.of(node)
    axes.freeze(moved, f"the order along it matters to '{node.name}'")


def _shuffle_channels(axes: JoinedAxes, node: fx.Node) -> None:
    """Groups of channels become channels of groups."""
    x, result = axes.of(first_input(node)), axes.of(node)
    groups = Axis(int(argument(node, "groups")), f"'{node.name}' mixes in groups")
    inside = Axis(x[1].size // groups.size)
    axes.join(node, [x[1]], [Axis.product([groups, inside])])
    axes.join(node, [result[1]], [Axis.product([inside, groups])])
    axes.join(node, without(x, {1}), without(result, {1}))


def _shuffle_pixels(axes: JoinedAxes, node: fx.Node, name: str) -> None:
    """[N, C * r * r, H, W] -> [N, C, H * r, W * r], or back."""
    deep, wide = axes.of(first_input(node)), axes.of(node)
    if name == "downscale_factor":
        deep, wide = wide, deep
    places = Axis(int(argument(node, name)) ** 2, f"'{node.name}' makes places of it")
    axes.join(node, [deep[-3]], [Axis.product([wide[-3], places])])
    axes.freeze([deep[-2:], wide[-2:]], f"'{node.name}' makes places of channels")
    axes.join(node, deep[:-3], wide[:-3])


def _row(*overloads: Any, **said: Any) -> Operator:
    return Operator(overloads, Ranges.PASSES, **said)


_resize_size = partial(_resize_shape, name="size")
_FILLED = (
    aten.zeros.default,
    aten.ones.default,
    aten.full.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
)
_FILLED_LIKE = (aten.zeros_like.default, aten.ones_like.default, aten.full_like.default)
RESHAPES = (
    _row(aten.view.default, join_axes=_reshape, resize=_resize_size),
    _row(aten.reshape.default, join_axes=_reshape, resize=partial(_resize_shape, name="shape")),
    _row(aten.flatten.using_ints, join_axes=_reshape),
)
TRANSPOSE = _row(aten.transpose.int, join_axes=_permute)
PERMUTE = _row(aten.permute.default, join_axes=_permute)
PIXEL_SHUFFLES = tuple(
    _row(overload, join_axes=partial(_shuffle_pixels, name=name))
    for overload, name in (
        (aten.pixel_shuffle.default, "upscale_factor"),
        (aten.pixel_unshuffle.default, "downscale_factor"),
    )
)
ROWS = (
    *RESHAPES,
    _row(aten.unflatten.int, join_axes=_reshape, resize=_resize_unflattened),
    TRANSPOSE,
    PERMUTE,
    _row(aten.unsqueeze.default, join_axes=_unsqueeze),
    _row(aten.squeeze.dim, aten.squeeze.dims, aten.squeeze.default, join_axes=_squeeze),
    _row(aten.expand.default, join_axes=_expand, resize=_resize_size),
    _row(aten.repeat.default, join_axes=partial(_repeat, name="repeats")),
    _row(aten.tile.default, join_axes=partial(_repeat, name="dims")),
    _row(aten.repeat_interleave.self_int),
    _row(aten.flip.default, join_axes=partial(_along, name="dims")),
    _row(aten.channel_shuffle.default, join_axes=_shuffle_channels),
    *PIXEL_SHUFFLES,
    # The same value everywhere, as the first states of recurrent layers.
    Operator(_FILLED, join_axes=_everywhere, resize=_resize_size),
    Operator(_FILLED_LIKE, join_axes=_expand),
    # Written as those above before anything is quantized.
    Operator((aten.t.default, aten.numpy_T.default, aten.mT.default), join_axes=_permute),
    Operator((aten.swapaxes.default,), join_axes=_permute),
    Operator((aten.movedim.int, aten.movedim.intlist), join_axes=_permute),
    Operator((aten.expand_as.default,), join_axes=_expand_as),
    Operator((aten.sym_size.int,), join_axes=_nothing),
    Operator((aten.roll.default,), join_axes=partial(_along, name="dims")),
    Operator((aten.cumsum.default,), join_axes=partial(_along, name="dim")),
)
