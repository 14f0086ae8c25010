"""Transposed convolutions as ordinary ones whose channels are shuffled into place, and back.

No runtime for CPUs has an integer kernel for the former that its converters use; all have them for
the latter. ``phases`` has the arithmetic.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

# Registers the operators of pairs.
import torch.ao.quantization.fx._decomposed
from torch import fx

from edgedl.compress.graph.edit import (
    copy_graph,
    finish,
    get_tensor,
    insert_call,
    insert_constant,
    insert_shaped_call,
    is_constant,
    tensor_of,
)
from edgedl.compress.graph.operators.table import FUSED_ACTIVATIONS, TRANSPOSED, aten
from edgedl.compress.graph.passes.phases import Extent, Geometry, phases_of, weight_of_phases

# On the last node of an opened transposed convolution: an ``Origin``.
ORIGIN = "transposed_convolution"
MOVES = (
    aten.slice.Tensor,
    aten.pixel_shuffle.default,
    aten.unflatten.int,
    aten.permute.default,
    aten.flatten.using_ints,
)
# What stands behind a layer of series, [N, C, T], and works on pictures as well.
SERIES_FOLLOWERS = frozenset({aten.batch_norm.default, *FUSED_ACTIVATIONS})
PAIR = (
    torch.ops.quantized_decomposed.quantize_per_tensor.default,
    torch.ops.quantized_decomposed.dequantize_per_tensor.default,
)


@dataclass(frozen=True)
class Origin:
    """What an ordinary convolution with its pixel shuffle was.

    Attributes:
        padded: whether zeros are put around its input by an operator of their own.
    """

    geometry: Geometry
    padded: bool


def series_as_pictures(module: fx.GraphModule, node: fx.Node) -> None:
    """Write a transposed convolution of series as one of pictures of one row, in place.

    With what follows it alone: a batch norm is folded into it then, and an activation.
    """
    x, weight, *rest = node.args
    bias, *numbers = rest or [None]
    row = insert_shaped_call(module, node, aten.unsqueeze.default, x, 2)
    stored = insert_shaped_call(module, node, aten.unsqueeze.default, weight, 2)
    # Stride, padding, output padding, groups, dilation; along the one row nothing happens.
    across = ([1], [0], [0], 1, [1])
    pairs = [
        given if isinstance(given, int) else [*one, *given]  # type: ignore[misc]
        for one, given in zip(across, numbers, strict=False)
    ]
    result = insert_shaped_call(module, node, TRANSPOSED, row, stored, bias, *pairs)
    last = node
    while len(last.users) == 1 and next(iter(last.users)).target in SERIES_FOLLOWERS:
        last = next(iter(last.users))
        result = insert_shaped_call(module, last, last.target, result, *last.args[1:])
    last.replace_all_uses_with(insert_shaped_call(module, last, aten.squeeze.dim, result, 2))


def open_transposed_convolution(module: fx.GraphModule, node: fx.Node) -> bool:
    """Write a transposed convolution as an ordinary one and a pixel shuffle, in place.

    Returns:
        Whether it was possible. One of a picture whose size is not fixed, or that crops more than
        its kernel overlaps, stays as it is.
    """
    x, stored, bias = _operands(node)
    if not is_constant(stored) or not (bias is None or is_constant(bias)):
        return False
    weight = get_tensor(module, stored.target)
    geometry = Geometry.of(node, weight)
    before, after = x.meta["val"].shape[2:], node.meta["val"].shape[2:]
    if not all(isinstance(size, int) for size in (*before, *after)):
        return False
    extent = Extent.of(geometry, before, after)
    if min(min(m) for m in extent.margins) < 0:
        return False
    result = _convolution(module, node, geometry, extent)
    activation = _activation_behind(node)
    if activation is not None:
        # In front of the moves it is folded into the convolution.
        result = insert_shaped_call(module, node, activation.target, result, *activation.args[1:])
        activation.replace_all_uses_with(node)
        module.graph.erase_node(activation)
    result = _shuffle(module, node, result, geometry.stride, extent.places)
    for axis, size in enumerate(after, start=2):
        if extent.places[axis - 2] * geometry.stride[axis - 2] > size:
            result = insert_shaped_call(module, node, aten.slice.Tensor, result, axis, 0, size)
    result.meta[ORIGIN] = Origin(geometry, padded=not extent.symmetric)
    node.replace_all_uses_with(result)
    module.graph.erase_node(node)
    return True


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
    x, stored, bias = _operands(node)
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


def join_transposed_convolutions(module: fx.GraphModule) -> fx.GraphModule:
    """Return a copy with transposed convolutions where ``open_transposed_convolution`` found them.

    ONNX Runtime's float kernels compute those faster. One that is quantized, or whose phases no
    longer belong together, since a stage has changed their weights or biases apart, stays open. The
    graph itself comes back if it has none.
    """
    if not any(ORIGIN in node.meta for node in module.graph.nodes):
        return module
    joined = copy_graph(module)
    for node in list(joined.graph.nodes):
        if ORIGIN in node.meta:
            _join(joined, node, node.meta[ORIGIN])
    return finish(joined)


def _join(module: fx.GraphModule, last: fx.Node, origin: Origin) -> None:
    moved: Any = last
    while moved.target in MOVES:
        moved = moved.args[0]
    activation = moved if moved.target in FUSED_ACTIVATIONS else None
    convolution = moved if activation is None else activation.args[0]
    if convolution.target is not aten.conv2d.default:
        return
    x, opened, bias = _operands(convolution)
    if not is_constant(opened):
        return
    geometry, phases = origin.geometry, get_tensor(module, opened.target)
    weight = weight_of_phases(phases, geometry)
    if not torch.equal(phases_of(weight, geometry), phases):
        return
    path = f"{last.name}_joined"
    if bias is not None:
        values = get_tensor(module, bias.target).reshape(-1, math.prod(geometry.stride))
        if not (values == values[:, :1]).all():
            return
        bias = insert_constant(module, last, f"{path}_bias", values[:, 0])
    if origin.padded:
        # Zeros and values of a grid are on it already.
        while x.target in PAIR:
            x = x.args[0]
        x = x.args[0]
    stored = insert_constant(module, last, f"{path}_weight", weight)
    transposed = (aten.conv_transpose2d.input, x, stored, bias, *geometry.arguments)
    result = insert_shaped_call(module, last, *transposed)
    result.meta["val"] = last.meta["val"]
    if activation is not None:
        behind = (activation.target, result, *activation.args[1:])
        result = insert_shaped_call(module, last, *behind)
        result.meta["val"] = last.meta["val"]
    last.replace_all_uses_with(result)


def crop_transposed_convolution(module: fx.GraphModule, node: fx.Node) -> None:
    """Write the padding of a transposed convolution as a crop of its output, in place.

    The TFLite converter has no form for padding, unless the output is exactly ``stride`` times as
    large as the input; then it stays.
    """
    x, weight, bias = _operands(node)
    geometry = Geometry.of(node, tensor_of(module, weight))
    before, after = x.meta["val"].shape[2:], node.meta["val"].shape[2:]
    fixed = all(isinstance(size, int) for size in (*before, *after))
    grows_by_stride = all(
        a == b * s for a, b, s in zip(after, before, geometry.stride, strict=True)
    )
    padding = geometry.padding
    beyond = any(e > p for e, p in zip(geometry.output_padding, padding, strict=True))
    if not fixed or not any(padding) or grows_by_stride or beyond:
        return
    whole = replace(geometry, padding=(0, 0), output_padding=(0, 0)).arguments
    result = insert_shaped_call(module, node, node.target, x, weight, bias, *whole)
    for axis, (start, size) in enumerate(zip(padding, after, strict=True), start=2):
        result = insert_shaped_call(
            module, node, aten.slice.Tensor, result, axis, start, start + size
        )
    node.replace_all_uses_with(result)
    module.graph.erase_node(node)


def _operands(node: fx.Node) -> tuple[Any, Any, Any]:
    """Return a layer's input, weight and bias, None where it has none."""
    x, weight, *rest = node.args
    return x, weight, rest[0] if rest else None
