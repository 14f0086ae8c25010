"""Normalizations."""

from dataclasses import dataclass
from functools import partial

from torch import fx

from edgedl.compress.graph.axes import Axis
from edgedl.compress.graph.joined_axes import JoinedAxes, SizesAfterCut
from edgedl.compress.graph.operators.operator import Operator, View, argument, aten, set_argument


@dataclass(frozen=True)
class BatchNorm(View):
    """A batch norm: weight, bias, mean and variance [C], axis 1 of the input."""

    input: fx.Node
    weight: fx.Node | None
    bias: fx.Node | None
    running_mean: fx.Node | None
    running_var: fx.Node | None
    training: bool
    momentum: float
    eps: float


@dataclass(frozen=True)
class LayerNorm(View):
    """A layer norm: weight and bias of the shape of the last axes."""

    input: fx.Node
    normalized_shape: list[int]
    weight: fx.Node | None
    bias: fx.Node | None
    eps: float


def _join(axes: JoinedAxes, node: fx.Node, own: slice) -> None:
    """Weight, bias, mean and variance have some axes of the result, the last of those."""
    x = argument(node, "input")
    axes.join(node, axes.of(x), axes.of(node))
    for operand in node.all_input_nodes:
        if operand is not x:
            axes.join_broadcast(node, axes.of(operand), axes.of(node)[own])


_join_channels, _join_last = (partial(_join, own=own) for own in (slice(1, 2), slice(None)))


def _join_statistics(axes: JoinedAxes, node: fx.Node) -> None:
    """Channels, whose statistics may be those of the places at hand, which stay then."""
    _join_channels(axes, node)
    if not (argument(node, "running_mean") and argument(node, "running_var")):
        _keep_places(axes, node)


def _join_instances(axes: JoinedAxes, node: fx.Node) -> None:
    """Channels; each has the statistics of its places, which stay."""
    _join_channels(axes, node)
    _keep_places(axes, node)


def _keep_places(axes: JoinedAxes, node: fx.Node) -> None:
    axes.freeze(axes.of(node)[2:], f"'{node.name}' has statistics of it")


def _join_groups(axes: JoinedAxes, node: fx.Node) -> None:
    """The channels are groups, which stay, of channels that are alike in each."""
    channels = axes.of(node)[1]
    groups = Axis(int(argument(node, "num_groups")), f"'{node.name}' normalizes in groups")
    inside = Axis(channels.size // groups.size)
    axes.join(node, [channels], [Axis.product([groups, inside])])
    _join_instances(axes, node)


def _resize_last(sizes: SizesAfterCut, before: fx.Node, after: fx.Node) -> None:
    count = len(argument(before, "normalized_shape"))
    set_argument(after, "normalized_shape", sizes.of(before)[-count:])


BATCH_NORM = Operator((aten.batch_norm.default,), training="training", join_axes=_join_statistics)
LAYER_NORM, RMS_NORM = (
    Operator((overload,), counts_channels=True, join_axes=_join_last, resize=_resize_last)
    for overload in (aten.layer_norm.default, aten.rms_norm.default)
)
ROWS = (
    BATCH_NORM,
    LAYER_NORM,
    Operator((aten.instance_norm.default,), join_axes=_join_instances),
    RMS_NORM,
    Operator((aten.group_norm.default,), counts_channels=True, join_axes=_join_groups),
)
