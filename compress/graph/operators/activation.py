"""Activations, softmax among them."""

import math

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


def _between(node: fx.Node, lowest: str, highest: str) -> tuple[float, float]:
    lo, hi = argument(node, lowest), argument(node, highest)
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


# Clips that a runtime folds into the requantization of the operator before them.
CLIPS = (
    Operator(
        "relu",
        (aten.relu.default,),
        Ranges.FUSES,
        bounds=lambda node: (0.0, math.inf),
        homogeneous=True,
        join_axes=elementwise,
    ),
    Operator(
        "relu6",
        (aten.relu6.default,),
        Ranges.FUSES,
        bounds=lambda node: (0.0, 6.0),
        join_axes=elementwise,
    ),
    Operator(
        "hardtanh",
        (aten.hardtanh.default,),
        Ranges.FUSES,
        bounds=lambda node: _between(node, "min_val", "max_val"),
        join_axes=elementwise,
    ),
    Operator(
        "clamp",
        (aten.clamp.default,),
        Ranges.FUSES,
        bounds=lambda node: _between(node, "min", "max"),
        join_axes=elementwise,
    ),
)
# A hard sigmoid is written with other operators, and reaches the ends of its range; the grids of
# the others have 256 steps of 1/256, and of 1/128.
HARD_SIGMOID = Operator(
    "hardsigmoid",
    (aten.hardsigmoid.default,),
    Ranges.FIXED,
    fixed_range=(0.0, 1.0),
    join_axes=elementwise,
)
HARD_SWISH = Operator(
    "hardswish",
    (aten.hardswish.default,),
    Ranges.COMPUTES,
    join_axes=elementwise,
)
SOFTMAX = Operator(
    "softmax",
    (aten.softmax.int, aten._softmax.default),
    Ranges.FIXED,
    fixed_range=(0.0, 255 / 256),
    join_axes=_join_softmax,
)
ROWS = (
    *CLIPS,
    Operator(
        "leaky_relu",
        (aten.leaky_relu.default,),
        Ranges.COMPUTES,
        homogeneous=True,
        join_axes=elementwise,
    ),
    Operator("gelu", (aten.gelu.default,), Ranges.COMPUTES, join_axes=elementwise),
    HARD_SWISH,
    HARD_SIGMOID,
    Operator(
        "sigmoid",
        (aten.sigmoid.default,),
        Ranges.FIXED,
        fixed_range=(0.0, 255 / 256),
        join_axes=elementwise,
    ),
    Operator(
        "tanh",
        (aten.tanh.default,),
        Ranges.FIXED,
        fixed_range=(-1.0, 127 / 128),
        join_axes=elementwise,
    ),
    SOFTMAX,
    Operator("hardswish_", (aten.hardswish_.default,), join_axes=elementwise),
    Operator("log_softmax", (aten.log_softmax.int,), join_axes=_join_softmax),
    Operator("log_sigmoid", (aten.log_sigmoid.default,), join_axes=elementwise),
    Operator("prelu", (aten.prelu.default,), join_axes=_join_parametric),
    Operator("glu", (aten.glu.default,), join_axes=_join_gated),
)
