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
    insert_again,
    insert_call,
    insert_constant,
    insert_shaped_call,
    inserter,
    only_reader,
)
from edgedl.compress.graph.operators.operator import Weighted, aten
from edgedl.compress.graph.operators.table import is_clip
from edgedl.compress.graph.passes.fold.batch_norm import FoldBatchNorm
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.passes.transposed.phases import Extent, Geometry, phases_of
from edgedl.compress.graph.values import record_value, shape_of, value_of

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
    operators = frozenset({aten.conv_transpose2d.input})

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Write one of them as a convolution."""
        layer = Weighted.of(node)
        if not layer.is_stored:
            return None
        geometry = Geometry.of(node, get_tensor(module, layer.weight_path))
        before, after = shape_of(layer.input)[2:], shape_of(node)[2:]
        if not all(isinstance(size, int) for size in (*before, *after)):
            return None
        extent = Extent.of(geometry, before, after)
        if min(min(m) for m in extent.margins) < 0:
            return None
        result = _convolution(module, node, geometry, extent)
        activation = only_reader(node)
        if activation is not None and is_clip(activation):
            # In front of the moves it is folded into the convolution.
            result = insert_again(module, node, activation, node, result)
            activation.replace_all_uses_with(node)
            module.graph.erase_node(activation)
        result = _shuffle(module, node, result, geometry, extent)
        for axis, size in enumerate(after, start=2):
            if extent.places[axis - 2] * geometry.stride[axis - 2] > size:
                result = insert_shaped_call(module, node, aten.slice.Tensor, result, axis, 0, size)
        result.meta[ORIGIN] = Origin(geometry, padded=not extent.symmetric)
        return result


def _shuffle(
    module: fx.GraphModule, node: fx.Node, phases: fx.Node, geometry: Geometry, extent: Extent
) -> fx.Node:
    """Insert what brings the phases of [N, C * height * width, H, W] into place; return it."""
    (height, width), places = geometry.stride, extent.places
    if height == width == 1:
        return phases
    batch, channels = shape_of(node)[:2]
    shape = (batch, channels, places[0] * height, places[1] * width)
    if height == width:
        return _insert(module, node, shape, aten.pixel_shuffle.default, phases, height)
    insert = inserter(module, node)
    result = insert(aten.unflatten.int, phases, 1, [channels, height, width])
    result = insert(aten.permute.default, result, [0, 1, 4, 2, 5, 3])
    result = insert(aten.flatten.using_ints, result, 4, 5)
    return insert(aten.flatten.using_ints, result, 2, 3)


def _convolution(
    module: fx.GraphModule, node: fx.Node, geometry: Geometry, extent: Extent
) -> fx.Node:
    """Insert the convolution that computes all phases of a transposed one; return it."""
    layer, path = Weighted.of(node), f"{node.name}_phases"
    x, bias = layer.input, layer.bias
    weight = phases_of(get_tensor(module, layer.weight_path), geometry)
    opened = insert_constant(module, node, f"{path}_weight", weight)
    if layer.bias_path is not None:
        values = get_tensor(module, layer.bias_path).repeat_interleave(math.prod(geometry.stride))
        bias = insert_constant(module, node, f"{path}_bias", values)
    (top, bottom), (left, right) = extent.margins
    padding = [top, left]
    if not extent.symmetric:
        shape = (*shape_of(x)[:2], *extent.padded)
        x = _insert(module, node, shape, aten.pad.default, x, [left, right, top, bottom])
        padding = [0, 0]
    arguments = (x, opened, bias, [1, 1], padding, [1, 1], geometry.groups)
    return insert_shaped_call(module, node, aten.conv2d.default, *arguments)


def _insert(
    module: fx.GraphModule, before: fx.Node, shape: tuple[Any, ...], function: Any, *arguments: Any
) -> fx.Node:
    """Insert a call whose shape is said: torch would make a number of the free batch."""
    call = insert_call(module.graph, before, function, *arguments)
    record_value(call, value_of(arguments[0]).new_empty(shape))
    return call
