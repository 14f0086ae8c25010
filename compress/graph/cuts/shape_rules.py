"""Which axes stay the same where values are moved, cut up or joined."""

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import fx

from edgedl.compress.graph.cuts.axes import Axis
from edgedl.compress.graph.operators.table import CONCAT, aten

if TYPE_CHECKING:
    from edgedl.compress.graph.cuts.tensor_axes import TensorAxes

END = 2**62


def argument(node: fx.Node, position: int, default: Any = None) -> Any:
    """Return a positional argument, or its default."""
    return node.args[position] if len(node.args) > position else default


def named_argument(node: fx.Node, name: str) -> Any:
    """Return an argument by its name in the operator's schema, wherever it stands."""
    operator_schema: Any = node.target
    for position, described in enumerate(operator_schema._schema.arguments):
        if described.name == name:
            return node.kwargs.get(name, argument(node, position, described.default_value))
    return None


def reshape(axes: "TensorAxes", node: fx.Node) -> None:
    """Runs of axes with the same number of positions are the same, in row-major order."""
    left, right = axes.of(node.args[0]), axes.of(node)
    while left or right:
        taken, made = _take(left), _take(right)
        while (a := _count(taken)) != (b := _count(made)):
            side, source = (taken, left) if a < b else (made, right)
            side.append(source.pop(0))
        axes.join(node, [Axis.product(taken)], [Axis.product(made)])


def _take(axes: list[Axis]) -> list[Axis]:
    return [axes.pop(0)] if axes else []


def _count(axes: list[Axis]) -> int:
    total = 1
    for axis in axes:
        total *= axis.size
    return total


def permute(axes: "TensorAxes", node: fx.Node) -> None:
    """The axes in another order."""
    x = axes.of(node.args[0])
    axes.join(node, [x[int(d)] for d in argument(node, 1)], axes.of(node))


def transpose(axes: "TensorAxes", node: fx.Node) -> None:
    """Two axes change places."""
    x = axes.of(node.args[0])
    first, second = (int(argument(node, place, place - 1)) for place in (1, 2))
    x[first], x[second] = x[second], x[first]
    axes.join(node, x, axes.of(node))


def reverse(axes: "TensorAxes", node: fx.Node) -> None:
    """The axes from the last to the first."""
    axes.join(node, axes.of(node.args[0])[::-1], axes.of(node))


def unsqueeze(axes: "TensorAxes", node: fx.Node) -> None:
    """An axis of size 1 comes in."""
    result = axes.of(node)
    del result[int(argument(node, 1)) % len(result)]
    axes.join(node, axes.of(node.args[0]), result)


def squeeze(axes: "TensorAxes", node: fx.Node) -> None:
    """Axes of size 1 go."""
    x = axes.of(node.args[0])
    given = argument(node, 1)
    gone = {int(d) % len(x) for d in (given if isinstance(given, (list, tuple)) else [given])}
    kept = [axis for d, axis in enumerate(x) if d not in gone or axis.size != 1]
    axes.join(node, kept, axes.of(node))


def expand(axes: "TensorAxes", node: fx.Node) -> None:
    """Axes of size 1 are repeated; a repeated axis is nobody's channels."""
    axes.join_broadcast(node, axes.of(node.args[0]), axes.of(node))


def concat(axes: "TensorAxes", node: fx.Node) -> None:
    """One axis is the sum of those of all operands."""
    parts = [axes.of(operand) for operand in argument(node, 0)]
    result = axes.of(node)
    dim = int(argument(node, 1, 0)) % len(result)
    axes.join(node, [Axis.sum([part[dim] for part in parts])], [result[dim]])
    for part in parts:
        axes.join(node, without(part, {dim}), without(result, {dim}))


def cut_slice(axes: "TensorAxes", node: fx.Node) -> None:
    """One axis is a run of positions of the operand's."""
    x, result = axes.of(node.args[0]), axes.of(node)
    dim = int(argument(node, 1, 0)) % len(x)
    axes.join(node, without(x, {dim}), without(result, {dim}))
    start, end, step = (argument(node, 2), argument(node, 3), argument(node, 4, 1))
    bounds = (0 if start is None else start, END if end is None else end, step)
    if not all(isinstance(b, int) for b in bounds) or step != 1:
        axes.freeze([x[dim], result[dim]], f"'{node.name}' takes some positions of it")
        return
    first, last, _ = slice(start, end).indices(x[dim].size)
    terms = [Axis(first), result[dim], Axis(x[dim].size - last)]
    axes.join(node, [x[dim]], [Axis.sum(terms)])


def select(axes: "TensorAxes", node: fx.Node) -> None:
    """One axis is gone but for one position."""
    x = axes.of(node.args[0])
    dim = int(argument(node, 1)) % len(x)
    axes.freeze([x[dim]], f"'{node.name}' takes one position of it")
    axes.join(node, without(x, {dim}), axes.of(node))


def unbind(axes: "TensorAxes", node: fx.Node) -> None:
    """One axis is gone; there is a result for each of its positions."""
    x = axes.of(node.args[0])
    dim = int(argument(node, 1, 0)) % len(x)
    axes.freeze([x[dim]], f"'{node.name}' takes it apart")
    for result in axes.results(node):
        axes.join(node, without(x, {dim}), result)


def split(axes: "TensorAxes", node: fx.Node) -> None:
    """One axis is the sum of those of all results."""
    x, results = axes.of(node.args[0]), axes.results(node)
    dim = int(argument(node, 2, 0)) % len(x)
    axes.join(node, [x[dim]], [Axis.sum([result[dim] for result in results])])
    if node.target is not aten.split_with_sizes.default:
        # The number of parts follows from one size for all.
        for result in results[1:]:
            if result[dim].size == results[0][dim].size:
                axes.join(node, [result[dim]], [results[0][dim]])
            else:
                axes.freeze([x[dim]], f"'{node.name}' splits it unevenly")
    for result in results:
        axes.join(node, without(x, {dim}), without(result, {dim}))


def item(axes: "TensorAxes", node: fx.Node) -> None:
    """One of several results."""
    axes.join(node, axes.results(node.args[0])[int(argument(node, 1))], axes.of(node))


def pad(axes: "TensorAxes", node: fx.Node) -> None:
    """An axis with positions added at its ends is a sum."""
    x, result = axes.of(node.args[0]), axes.of(node)
    widths = [int(w) for w in argument(node, 1)]
    for index, (axis, wider) in enumerate(zip(reversed(x), reversed(result), strict=True)):
        before, after = (*widths[2 * index : 2 * index + 2], 0, 0)[:2]
        if before < 0 or after < 0:
            axes.freeze([axis, wider], f"'{node.name}' crops it")
            continue
        ends = [Axis(n, f"'{node.name}' pads with it") for n in (before, after)]
        axes.join(node, [Axis.sum([ends[0], axis, ends[1]])], [wider])


def stack(axes: "TensorAxes", node: fx.Node) -> None:
    """An axis comes in that has a position for every operand."""
    dim = int(argument(node, 1, 0)) % len(axes.of(node))
    for operand in argument(node, 0):
        axes.join(node, axes.of(operand), without(axes.of(node), {dim}))


def expand_as(axes: "TensorAxes", node: fx.Node) -> None:
    """Axes of size 1 are repeated as often as another tensor has positions."""
    expand(axes, node)
    axes.join(node, axes.of(node.args[1]), axes.of(node))


def repeat(axes: "TensorAxes", node: fx.Node) -> None:
    """What is repeated keeps its size."""
    x, result = axes.of(node.args[0])[::-1], axes.of(node)[::-1]
    counts = [*reversed(argument(node, 1)), *[1] * len(x)]
    for own, repeated, count in zip(x, result, counts, strict=False):
        if count == 1:
            axes.join(node, [own], [repeated])
        else:
            axes.freeze([own, repeated], f"'{node.name}' repeats it")


def along(axes: "TensorAxes", node: fx.Node) -> None:
    """What depends on the order of positions keeps them: flip, roll, cumulative sums."""
    axes.join(node, axes.of(node.args[0]), axes.of(node))
    given = argument(node, 2 if node.target is aten.roll.default else 1, ())
    dims = given if isinstance(given, (list, tuple)) else [given]
    moved = [axes.of(node)[int(d)] for d in dims] if dims else axes.of(node)
    axes.freeze(moved, f"the order along it matters to '{node.name}'")


def move_axes(axes: "TensorAxes", node: fx.Node) -> None:
    """Some axes go elsewhere, the others keep their order."""
    x, result = axes.of(node.args[0]), axes.of(node)
    source, goal = (argument(node, n) for n in (1, 2))
    pairs = zip(*([d] if isinstance(d, int) else d for d in (source, goal)), strict=True)
    places = [(int(a) % len(x), int(b) % len(x)) for a, b in pairs]
    axes.join(node, [x[a] for a, _ in places], [result[b] for _, b in places])
    axes.join(node, without(x, {a for a, _ in places}), without(result, {b for _, b in places}))


def gated(axes: "TensorAxes", node: fx.Node) -> None:
    """Gated linear unit: an axis is the result's twice, values and gates."""
    x, result = axes.of(node.args[0]), axes.of(node)
    dim = int(argument(node, 1, -1)) % len(x)
    axes.join(node, [x[dim]], [Axis.sum([result[dim], result[dim]])])
    axes.join(node, without(x, {dim}), without(result, {dim}))


def pixel_shuffle(axes: "TensorAxes", node: fx.Node) -> None:
    """[N, C * r * r, H, W] -> [N, C, H * r, W * r]."""
    _shuffle_pixels(axes, node, axes.of(node.args[0]), axes.of(node))


def pixel_unshuffle(axes: "TensorAxes", node: fx.Node) -> None:
    """[N, C, H * r, W * r] -> [N, C * r * r, H, W]."""
    _shuffle_pixels(axes, node, axes.of(node), axes.of(node.args[0]))


def _shuffle_pixels(axes: "TensorAxes", node: fx.Node, deep: list[Axis], wide: list[Axis]) -> None:
    places = Axis(int(argument(node, 1)) ** 2, f"'{node.name}' makes places of it")
    axes.join(node, [deep[-3]], [Axis.product([wide[-3], places])])
    axes.freeze([deep[-2:], wide[-2:]], f"'{node.name}' makes places of channels")
    axes.join(node, deep[:-3], wide[:-3])


def channel_shuffle(axes: "TensorAxes", node: fx.Node) -> None:
    """Groups of channels become channels of groups."""
    x, result = axes.of(node.args[0]), axes.of(node)
    groups = Axis(int(argument(node, 1)), f"'{node.name}' mixes in groups")
    inside = Axis(x[1].size // groups.size)
    axes.join(node, [x[1]], [Axis.product([groups, inside])])
    axes.join(node, [result[1]], [Axis.product([inside, groups])])
    axes.join(node, without(x, {1}), without(result, {1}))


def without(axes: Sequence[Axis], dims: set[int]) -> list[Axis]:
    """Return the other axes."""
    return [axis for d, axis in enumerate(axes) if d not in dims]


SHAPE_RULES: dict[Any, Callable[["TensorAxes", fx.Node], None]] = {
    **dict.fromkeys(
        (
            aten.view.default,
            aten.reshape.default,
            aten.flatten.using_ints,
            aten.unflatten.int,
        ),
        reshape,
    ),
    **dict.fromkeys((aten.squeeze.dim, aten.squeeze.dims), squeeze),
    **dict.fromkeys((aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default), split),
    **dict.fromkeys((aten.pad.default, aten.constant_pad_nd.default), pad),
    aten.permute.default: permute,
    aten.transpose.int: transpose,
    aten.swapaxes.default: transpose,
    aten.t.default: transpose,
    aten.numpy_T.default: reverse,
    aten.unsqueeze.default: unsqueeze,
    aten.expand.default: expand,
    aten.expand_as.default: expand_as,
    **dict.fromkeys((aten.repeat.default, aten.tile.default), repeat),
    **dict.fromkeys((aten.flip.default, aten.roll.default, aten.cumsum.default), along),
    **dict.fromkeys((aten.movedim.int, aten.movedim.intlist), move_axes),
    aten.glu.default: gated,
    aten.pixel_shuffle.default: pixel_shuffle,
    aten.pixel_unshuffle.default: pixel_unshuffle,
    aten.channel_shuffle.default: channel_shuffle,
    aten.stack.default: stack,
    CONCAT: concat,
    aten.slice.Tensor: cut_slice,
    aten.select.int: select,
    aten.unbind.int: unbind,
    operator.getitem: item,
}
