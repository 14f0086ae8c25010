"""Pools, and resizing."""

from functools import partial

from torch import fx

from edgedl.compress.graph.joined_axes import JoinedAxes
from edgedl.compress.graph.operators.operator import (
    Operator,
    Ranges,
    always,
    argument,
    aten,
    first_input,
)
from edgedl.compress.graph.values import shape_of, value_of


def _join_axes(axes: JoinedAxes, node: fx.Node, spatial: int) -> None:
    """Batch and channels stay what they are; windows move along the others."""
    x = axes.of(first_input(node))
    channels = len(x) - spatial
    for result in axes.results(node):
        axes.join(node, x[:channels], result[:channels])
        axes.slide(node, [x[channels:], result[channels:]])


def _averages(node: fx.Node) -> bool:
    """Say whether all windows weigh the same: runtimes disagree on those over the edge."""
    return bool(argument(node, "count_include_pad")) and not argument(node, "ceil_mode")


def _divides(node: fx.Node) -> bool:
    """Say whether the windows of an adaptive pool are all of one size."""
    source = first_input(node)
    if not isinstance(source, fx.Node) or value_of(source) is None:
        return False
    before, after = shape_of(source)[-2:], shape_of(node)[-2:]
    return all(isinstance(b, int) and b % a == 0 for b, a in zip(before, after, strict=True))


_on_series, _on_maps = (partial(_join_axes, spatial=n) for n in (1, 2))
MAX_POOL1D = Operator((aten.max_pool1d.default,), Ranges.PASSES, join_axes=_on_series)
# Into the pools of pictures TFLite folds an activation if both are on one grid.
MAX_POOL2D, AVG_POOL2D = (
    Operator(
        (overload,), Ranges.PASSES, passes_if=passes_if, folds_activation=always, join_axes=_on_maps
    )
    for overload, passes_if in (
        (aten.max_pool2d.default, always),
        (aten.avg_pool2d.default, _averages),
    )
)
MAX_POOLS = (MAX_POOL1D, MAX_POOL2D)
ROWS = (
    *MAX_POOLS,
    AVG_POOL2D,
    Operator(
        (aten.adaptive_avg_pool2d.default,), Ranges.PASSES, passes_if=_divides, join_axes=_on_maps
    ),
    Operator((aten.upsample_nearest2d.vec,), Ranges.PASSES, join_axes=_on_maps),
    Operator((aten.upsample_bilinear2d.vec,), Ranges.PASSES, join_axes=_on_maps),
    Operator((aten.upsample_nearest1d.vec,), Ranges.PASSES, join_axes=_on_series),
    Operator((aten.avg_pool1d.default,), join_axes=_on_series),
    Operator((aten.adaptive_avg_pool1d.default,), join_axes=_on_series),
    Operator((aten.adaptive_max_pool2d.default,), join_axes=_on_maps),
)
