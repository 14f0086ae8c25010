"""What joins tensors, takes them apart, or adds to their ends."""

import operator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from torch import fx

from edgedl.compress.graph.axes import Axis
from edgedl.compress.graph.joined_axes import JoinedAxes, SizesAfterCut
from edgedl.compress.graph.operators.moving import without
from edgedl.compress.graph.operators.operator import (
    Operator,
    Ranges,
    View,
    argument,
    aten,
    first_input,
    set_argument,
)

END = 2**62


@dataclass(frozen=True)
class Slice(View):
    """A run of positions along an axis, or every ``step``-th of them."""

    input: fx.Node
    dim: int
    start: int | fx.Node | None
    end: int | fx.Node | None
    step: int


@dataclass(frozen=True)
class Pad(View):
    """Values added at the ends of axes, those of the last axis first: [before, after, ...]."""

    input: fx.Node
    pad: list[int]


class Item(NamedTuple):
    """One of several results."""

    source: Any
    index: Any

    @classmethod
    def of(cls, node: fx.Node) -> "Item":
        """Read a ``getitem``, which has no schema."""
        return cls(*node.args)


def pads_with_zeros(node: fx.Node) -> bool:
    """Say whether padding brings in no value that nobody observed."""
    return not argument(node, "value")


def _join(axes: JoinedAxes, node: fx.Node) -> None:
    """One axis is the sum of those of all operands."""
    parts = [axes.of(operand) for operand in argument(node, "tensors")]
    result = axes.of(node)
    dim = int(argument(node, "dim")) % len(result)
    axes.join(node, [Axis.sum([part[dim] for part in parts])], [result[dim]])
    for part in parts:
        axes.join(node, without(part, {dim}), without(result, {dim}))


def _stack(axes: JoinedAxes, node: fx.Node) -> None:
    """An axis comes in that has a position for every operand."""
    dim = int(argument(node, "dim")) % len(axes.of(node))
    for operand in argument(node, "tensors"):
        axes.join(node, axes.of(operand), without(axes.of(node), {dim}))


def _slice(axes: JoinedAxes, node: fx.Node) -> None:
    """One axis is a run of positions of the operand's."""
    view = Slice.of(node)
    x, result = axes.of(view.input), axes.of(node)
    dim = view.dim % len(x)
    axes.join(node, without(x, {dim}), without(result, {dim}))
    start = 0 if view.start is None else view.start
    end = END if view.end is None else view.end
    if not (isinstance(start, int) and isinstance(end, int) and view.step == 1):
        axes.freeze([x[dim], result[dim]], f"'{node.name}' takes some positions of it")
        return
    first, last, _ = slice(start, end).indices(x[dim].size)
    terms = [Axis(first), result[dim], Axis(x[dim].size - last)]
    axes.join(node, [x[dim]], [Axis.sum(terms)])


def _resize_slice(sizes: SizesAfterCut, before: fx.Node, after: fx.Node) -> None:
    view = Slice.of(before)
    if sizes.changed(view.input, view.dim):
        axis = sizes.axis(view.input, view.dim)
        first, last, _ = slice(view.start, view.end).indices(axis.size)
        set_argument(after, "start", sizes.position(axis, first))
        set_argument(after, "end", sizes.position(axis, last))


def _select(axes: JoinedAxes, node: fx.Node) -> None:
    """One axis is gone but for one position."""
    x = axes.of(first_input(node))
    dim = int(argument(node, "dim")) % len(x)
    axes.freeze([x[dim]], f"'{node.name}' takes one position of it")
    axes.join(node, without(x, {dim}), axes.of(node))


def _unbind(axes: JoinedAxes, node: fx.Node) -> None:
    """One axis is gone; there is a result for each of its positions."""
    x = axes.of(first_input(node))
    dim = int(argument(node, "dim")) % len(x)
    axes.freeze([x[dim]], f"'{node.name}' takes it apart")
    for result in axes.results(node):
        axes.join(node, without(x, {dim}), result)


def _split(axes: JoinedAxes, node: fx.Node, even: bool) -> None:
    """One axis is the sum of those of all results; of an even split they have one size."""
    x, results = axes.of(first_input(node)), axes.results(node)
    dim = int(argument(node, "dim")) % len(x)
    axes.join(node, [x[dim]], [Axis.sum([result[dim] for result in results])])
    for result in results[1:] if even else ():
        if result[dim].size == results[0][dim].size:
            axes.join(node, [result[dim]], [results[0][dim]])
        else:
            axes.freeze([x[dim]], f"'{node.name}' splits it unevenly")
    for result in results:
        axes.join(node, without(x, {dim}), without(result, {dim}))


def _resize_split(sizes: SizesAfterCut, before: fx.Node, after: fx.Node, even: bool) -> None:
    dim = int(argument(before, "dim"))
    if sizes.changed(first_input(before), dim):
        new = sizes.parts(before, dim)
        name, size = ("split_size", new[0]) if even else ("split_sizes", new)
        set_argument(after, name, size)


def _item(axes: JoinedAxes, node: fx.Node) -> None:
    """The axes of one of several results."""
    item = Item.of(node)
    every = axes.results(item.source)
    axes.join(node, every[item.index], axes.of(node))
    for other in every:
        axes.speak_of(other)


def _repeats_values(node: fx.Node) -> bool:
    """Say whether what is added are values of the input: its edge, its mirror image."""
    return node.target is aten.pad.default and argument(node, "mode") != "constant"


def _pad(axes: JoinedAxes, node: fx.Node) -> None:
    """An axis with positions added at its ends is a sum."""
    view = Pad.of(node)
    x, result = axes.of(view.input), axes.of(node)
    for index, (axis, wider) in enumerate(zip(reversed(x), reversed(result), strict=True)):
        before, after = (*view.pad[2 * index : 2 * index + 2], 0, 0)[:2]
        if before < 0 or after < 0:
            axes.freeze([axis, wider], f"'{node.name}' crops it")
            continue
        if (before or after) and _repeats_values(node):
            axes.freeze([axis, wider], f"'{node.name}' repeats values of it")
            continue
        ends = [Axis(n, f"'{node.name}' pads with it") for n in (before, after)]
        axes.join(node, [Axis.sum([ends[0], axis, ends[1]])], [wider])


CONCAT = Operator((aten.cat.default,), Ranges.JOINS, join_axes=_join)
PADDINGS = tuple(
    Operator((overload,), Ranges.PASSES, passes_if=pads_with_zeros, join_axes=_pad)
    for overload in (aten.pad.default, aten.constant_pad_nd.default)
)
ROWS = (
    CONCAT,
    *PADDINGS,
    Operator((aten.slice.Tensor,), Ranges.PASSES, join_axes=_slice, resize=_resize_slice),
    Operator((aten.select.int,), Ranges.PASSES, join_axes=_select),
    Operator((aten.stack.default,), join_axes=_stack),
    Operator((aten.unbind.int,), join_axes=_unbind),
    *(
        Operator(
            (overload,),
            join_axes=partial(_split, even=even),
            resize=partial(_resize_split, even=even),
        )
        for overload, even in ((aten.split.Tensor, True), (aten.split_with_sizes.default, False))
    ),
    Operator((aten.chunk.default,), join_axes=partial(_split, even=True)),
    Operator((operator.getitem,), join_axes=_item),
)
