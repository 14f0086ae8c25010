"""Activations, softmax among them."""

import math
from functools import partial
from typing import Any

from torch import fx

from edgedl.compress.graph.axes import Axis
from edgedl.compress.graph.joined_axes import JoinedAxes
from edgedl.compress.graph.operators.operator import (
    Operator,
    Ranges,
    argument,
    aten,
    elementwise,
    first_input,
)

# The end of a grid of 16-bit kernels with one grid for their result, whose steps are 1/32768.
FIXED_END_INT16 = 32767 / 32768


def _between(node: fx.Node, names: tuple[str, str]) -> tuple[float, float]:
    lo, hi = (argument(node, name) for name in names)
    return -math.inf if lo is None else float(lo), math.inf if hi is None else float(hi)


def _join_softmax(axes: JoinedAxes, node: fx.Node) -> None:
    """The axis that sums to one keeps its size."""
    own = axes.of(node)
    axes.join(node, axes.of(first_input(node)), own)
    axes.freeze([own[int(argument(node, "dim"))]], f"'{node.name}' sums to one along it")


def _join_parametric(axes: JoinedAxes, node: fx.Node) -> None:
    """One slope for all, or one for each channel, axis 1."""
    axes.join(node, axes.of(first_input(node)), axes.of(node))
    axes.join_broadcast(node, axes.of(argument(node, "weight")), axes.of(node)[1:2])


def _join_gated(axes: JoinedAxes, node: fx.Node) -> None:
    """Gated linear unit: an axis is the result's twice, values and gates."""
    x, result = axes.of(first_input(node)), axes.of(node)
    dim = int(argument(node, "dim")) % len(x)
    for place, (own, halved) in enumerate(zip(x, result, strict=True)):
        axes.join(node, [own], [Axis.sum([halved, halved]) if place == dim else halved])


def _row(*overloads: Any, **said: Any) -> Operator:
    return Operator(overloads, **{"join_axes": elementwise, **said})


# Clips that a runtime folds into the requantization of the operator before them.
CLIPS = tuple(
    _row(overload, ranges=Ranges.FUSES, bounds=bounds, homogeneous=homogeneous)
    for overload, bounds, homogeneous in (
        (aten.relu.default, lambda node: (0.0, math.inf), True),
        (aten.relu6.default, lambda node: (0.0, 6.0), False),
        (aten.hardtanh.default, partial(_between, names=("min_val", "max_val")), False),
        (aten.clamp.default, partial(_between, names=("min", "max")), False),
    )
)
HARD_SWISH = _row(aten.hardswish.default, ranges=Ranges.COMPUTES)
# A hard sigmoid is written with other operators, and reaches the ends of its range; the grids of
# the others have 256 steps of 1/256, and of 1/128.
HARD_SIGMOID, SIGMOID, TANH = (
    _row(overload, ranges=Ranges.FIXED, fixed_range=ends)
    for overload, ends in (
        (aten.hardsigmoid.default, (0.0, 1.0)),
        (aten.sigmoid.default, (0.0, 255 / 256)),
        (aten.tanh.default, (-1.0, 127 / 128)),
    )
)
SOFTMAX = Operator(
    (aten.softmax.int, aten._softmax.default),
    Ranges.FIXED,
    fixed_range=(0.0, 255 / 256),
    join_axes=_join_softmax,
)
ROWS = (
    *CLIPS,
    _row(aten.leaky_relu.default, ranges=Ranges.COMPUTES, homogeneous=True),
    _row(aten.gelu.default, ranges=Ranges.COMPUTES),
    HARD_SWISH,
    HARD_SIGMOID,
    SIGMOID,
    TANH,
    SOFTMAX,
    _row(aten.hardswish_.default),
    _row(aten.log_sigmoid.default),
    _row(aten.log_softmax.int, join_axes=_join_softmax),
    _row(aten.prelu.default, join_axes=_join_parametric),
    _row(aten.glu.default, join_axes=_join_gated),
)
