"""Convolutions."""

from dataclasses import dataclass
from functools import partial

from torch import fx

from edgedl.compress.graph.axes import Axis
from edgedl.compress.graph.joined_axes import JoinedAxes, SizesAfterCut
from edgedl.compress.graph.operators.operator import (
    AxesOf,
    Operator,
    Product,
    Ranges,
    Weighted,
    always,
    aten,
    set_argument,
)
from edgedl.compress.graph.sizes import places_of


@dataclass(frozen=True)
class Convolution(Weighted):
    """A convolution, transposed or not: weight [out, in / groups, ...] or [in, out / groups, ...].

    Attributes:
        padding: of each spatial axis, or "same" or "valid".
    """

    stride: list[int]
    padding: list[int] | str
    dilation: list[int]
    groups: int


@dataclass(frozen=True)
class TransposedConvolution(Convolution):
    """A transposed convolution."""

    output_padding: list[int]


def _join_axes(axes: JoinedAxes, node: fx.Node, transposed: bool) -> None:
    """Of a group, the channels of input and result are the axes of the weight."""
    view = Convolution.of(node)
    x, weight, result = axes.of(view.input), axes.of(view.weight), axes.of(node)
    group = Axis(view.groups)
    whole, part = (x[1], result[1]) if transposed else (result[1], x[1])
    if view.groups == 1:
        axes.join(node, [weight[0], weight[1]], [whole, part])
    else:
        # A group of one channel in and one out may go; of larger ones only channels of each.
        inner = Axis(weight[0].size // view.groups)
        axes.join(node, [weight[0]], [Axis.product([group, inner])])
        axes.join(node, [whole], [weight[0]])
        axes.join(node, [part], [Axis.product([group, weight[1]])])
    axes.join_broadcast(node, axes.of(view.bias), [result[1]])
    axes.join(node, x[:1], result[:1])
    axes.freeze([weight[2:]], f"'{node.name}' has it for a kernel")
    axes.slide(node, [x[2:], result[2:]])


def _resize(sizes: SizesAfterCut, before: fx.Node, after: fx.Node, transposed: bool) -> None:
    """Write how many groups are left."""
    view = Convolution.of(before)
    if view.groups != 1:
        channels = sizes.of(before if transposed else view.input)[1]
        set_argument(after, "groups", channels // sizes.of(view.weight)[1])


def _macs(of: AxesOf, node: fx.Node, transposed: bool) -> list[Product]:
    view = Convolution.of(node)
    places = places_of(view.input if transposed else node, channel_axis=1)
    return [Product(tuple(of(view.weight)), places)]


CONVOLUTIONS = CONV1D, CONV2D = tuple(
    Operator(
        overloads,
        Ranges.COMPUTES,
        weight_axis=0,
        folds_activation=always,
        macs=partial(_macs, transposed=False),
        join_axes=partial(_join_axes, transposed=False),
        resize=partial(_resize, transposed=False),
    )
    for overloads in (
        (aten.conv1d.default, aten.conv1d.padding),
        (aten.conv2d.default, aten.conv2d.padding),
    )
)
# Written as convolutions before anything is quantized (passes/transposed), of series as well.
TRANSPOSED, TRANSPOSED_SERIES = (
    Operator(
        (overload,),
        weight_axis=axis,
        macs=partial(_macs, transposed=True),
        join_axes=partial(_join_axes, transposed=True),
        resize=partial(_resize, transposed=True),
    )
    for overload, axis in ((aten.conv_transpose2d.input, 1), (aten.conv_transpose1d.default, -1))
)
ROWS = (*CONVOLUTIONS, TRANSPOSED, TRANSPOSED_SERIES)
