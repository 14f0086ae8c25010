"""Pools, and resizing."""

from dataclasses import dataclass
from functools import partial

from torch import fx

from edgedl.compress.graph.joined_axes import JoinedAxes
from edgedl.compress.graph.operators.operator import (
    Operator,
    Ranges,
    View,
    always,
    aten,
    first_input,
)
from edgedl.compress.graph.values import shape_of, value_of


@dataclass(frozen=True)
class AveragePool(View):
    """An average pool of windows of one size."""

    input: fx.Node
    kernel_size: list[int]
    stride: list[int]
    padding: list[int]
    ceil_mode: bool
    count_include_pad: bool


def _join_axes(axes: JoinedAxes, node: fx.Node, spatial: int) -> None:
    """Batch and channels stay what they are."""
    x = axes.of(first_input(node))
    channels = len(x) - spatial
    for result in axes.results(node):
        axes.join(node, x[:channels], result[:channels])


def _averages(node: fx.Node) -> bool:
    """Say whether all windows weigh the same: runtimes disagree on those over the edge."""
    view = AveragePool.of(node)
    return view.count_include_pad and not view.ceil_mode


def _divides(node: fx.Node) -> bool:
    """Say whether the windows of an adaptive pool are all of one size."""
    source = first_input(node)
    if not isinstance(source, fx.Node) or value_of(source) is None:
        return False
    before, after = shape_of(source)[-2:], shape_of(node)[-2:]
    return all(isinstance(b, int) and b % a == 0 for b, a in zip(before, after, strict=True))


on_series, on_maps = (partial(_join_axes, spatial=n) for n in (1, 2))
MAX_POOL1D = Operator("max_pool1d", (aten.max_pool1d.default,), Ranges.PASSES, join_axes=on_series)
# Into the pools of pictures TFLite folds an activation if both are on one grid.
MAX_POOL2D = Operator(
    "max_pool2d",
    (aten.max_pool2d.default,),
    Ranges.PASSES,
    folds_activation=always,
    join_axes=on_maps,
)
AVG_POOL2D = Operator(
    "avg_pool2d",
    (aten.avg_pool2d.default,),
    Ranges.PASSES,
    passes_if=_averages,
    folds_activation=always,
    join_axes=on_maps,
)
MAX_POOLS = (MAX_POOL1D, MAX_POOL2D)
ROWS = (
    *MAX_POOLS,
    AVG_POOL2D,
    Operator(
        "adaptive_avg_pool2d",
        (aten.adaptive_avg_pool2d.default,),
        Ranges.PASSES,
        passes_if=_divides,
        join_axes=on_maps,
    ),
    Operator("avg_pool1d", (aten.avg_pool1d.default,), join_axes=on_series),
    Operator("adaptive_avg_pool1d", (aten.adaptive_avg_pool1d.default,), join_axes=on_series),
    Operator("adaptive_max_pool2d", (aten.adaptive_max_pool2d.default,), join_axes=on_maps),
    *(
        Operator(name, (overload,), Ranges.PASSES, join_axes=on_maps)
        for name, overload in (
            ("upsample_nearest2d", aten.upsample_nearest2d.vec),
            ("upsample_bilinear2d", aten.upsample_bilinear2d.vec),
        )
    ),
)
