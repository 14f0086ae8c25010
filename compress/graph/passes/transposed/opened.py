"""Transposed convolutions as ordinary ones whose channels are shuffled into place.

No runtime for CPUs has an integer kernel for the former that its converters use; all have them for
the latter. ``phases`` has the arithmetic.
"""

import math
from dataclasses import dataclass
from typing import Any

from torch import fx

from edgedl.compress.graph.edit import (
    get_tensor,
    insert_call,
    insert_constant,
    insert_shaped_call,
    is_constant,
)
from edgedl.compress.graph.operators.table import FUSED_ACTIVATIONS, TRANSPOSED, aten
from edgedl.compress.graph.passes.fold.batch_norm import FoldBatchNorm
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.passes.transposed.phases import (
    Extent,
    Geometry,
    operands_of,
    phases_of,
)

# On the last node of an opened transposed convolution: an ``Origin``.
ORIGIN = "transposed_convolution"


@dataclass(frozen=True)
class Origin:
    """What an ordinary convolution with its pixel shuffle was.

    Attributes:
        padded: whether zeros are put around its input by an operator of their own.
    """

    geometry: Geometry
    padded: bool


class OpenTransposed(Pass):
    """Write a transposed convolution as an ordinary one and a pixel shuffle.

    One of a picture whose size is not fixed, or that crops more than its kernel overlaps, stays as
    it is.

    Before: ``relu(conv_transpose2d(x, w, stride=2))``.
    After: ``pixel_shuffle(relu(conv2d(x, phases of w)), 2)``.
    """

    requires = (FoldBatchNorm,)
    operators = frozenset({TRANSPOSED})

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Write one of them as a convolution."""
        x, stored, bias = operands_of(node)
        if not is_constant(stored) or not (bias is None or is_constant(bias)):
            return None
        geometry = Geometry.of(node, get_tensor(module, stored.target))
        before, after = x.meta["val"].shape[2:], node.meta["val"].shape[2:]
        if not all(isinstance(size, int) for size in (*before, *after)):
            return None
        extent = Extent.of(geometry, before, after)
        if min(min(m) for m in extent.margins) < 0:
            return None
        result = _convolution(module, node, geometry, extent)
        activation = _activation_behind(node)
        if activation is not None:
            # In front of the moves it is folded into the convolution.
            behind = (activation.target, result, *activation.args[1:])
            result = insert_shaped_call(module, node, *behind)
            activation.replace_all_uses_with(node)
            module.graph.erase_node(activation)
        result = _shuffle(module, node, result, geometry.stride, extent.places)
        for axis, size in enumerate(after, start=2):
            if extent.places[axis - 2] * geometry.stride[axis - 2] > size:
                result = insert_shaped_call(module, node, aten.slice.Tensor, result, axis, 0, size)
        result.meta[ORIGIN] = Origin(geometry, padded=not extent.symmetric)
        return result


def _shuffle(
    module: fx.GraphModule,
    node: fx.Node,
    phases: fx.Node,
    stride: tuple[int, int],
    places: tuple[int, int],
) -> fx.Node:
    """Insert what brings the phases of [N, C * height * width, H, W] into place; return it."""
    height, width = stride
    if height == width == 1:
        return phases
    batch, channels = node.meta["val"].shape[:2]
    shape = (batch, channels, places[0] * height, places[1] * width)
    if height == width:
        return _insert(module, node, shape, aten.pixel_shuffle.default, phases, height)
    result = insert_shaped_call(
        module, node, aten.unflatten.int, phases, 1, [channels, height, width]
    )
    result = insert_shaped_call(module, node, aten.permute.default, result, [0, 1, 4, 2, 5, 3])
    result = insert_shaped_call(module, node, aten.flatten.using_ints, result, 4, 5)
    return insert_shaped_call(module, node, aten.flatten.using_ints, result, 2, 3)


def _convolution(
    module: fx.GraphModule, node: fx.Node, geometry: Geometry, extent: Extent
) -> fx.Node:
    """Insert the convolution that computes all phases of a transposed one; return it."""
    x, stored, bias = operands_of(node)
    path = f"{node.name}_phases"
    weight = phases_of(get_tensor(module, stored.target), geometry)
    opened = insert_constant(module, node, f"{path}_weight", weight)
    if bias is not None:
        values = get_tensor(module, bias.target).repeat_interleave(math.prod(geometry.stride))
        bias = insert_constant(module, node, f"{path}_bias", values)
    (top, bottom), (left, right) = extent.margins
    padding = [top, left]
    if not extent.symmetric:
        shape = (*x.meta["val"].shape[:2], *extent.padded)
        x = _insert(module, node, shape, aten.pad.default, x, [left, right, top, bottom])
        padding = [0, 0]
    arguments = (x, opened, bias, [1, 1], padding, [1, 1], geometry.groups)
    return insert_shaped_call(module, node, aten.conv2d.default, *arguments)


def _activation_behind(node: fx.Node) -> fx.Node | None:
    """Return the activation that alone reads a node's value, if there is one."""
    user = next(iter(node.users)) if len(node.users) == 1 else None
    return user if user is not None and user.target in FUSED_ACTIVATIONS else None


def _insert(
    module: fx.GraphModule, before: fx.Node, shape: tuple[Any, ...], function: Any, *arguments: Any
) -> fx.Node:
    """Insert a call whose shape is said: torch would make a number of the free batch."""
    call = insert_call(module.graph, before, function, *arguments)
    call.meta["val"] = arguments[0].meta["val"].new_empty(shape)
    return call
