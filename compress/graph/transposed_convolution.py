"""Transposed convolutions as ordinary ones whose channels are shuffled into place, and back.

No runtime for CPUs has an integer kernel for the former that its converters use; all have them for
the latter. ``phases`` has the arithmetic.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
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
from edgedl.compress.graph.operators import aten
from edgedl.compress.graph.phases import Geometry, phases_of, weight_of_phases

# On the last node of an opened transposed convolution: an ``Origin``.
ORIGIN = "transposed_convolution"
MOVES = (aten.slice.Tensor, aten.pixel_shuffle.default)


@dataclass(frozen=True)
class Origin:
    """What an ordinary convolution with its pixel shuffle was.

    Attributes:
        padded: whether zeros are put around its input by an operator of their own.
    """

    geometry: Geometry
    padded: bool


def open_transposed_convolution(module: fx.GraphModule, node: fx.Node) -> bool:
    """Write a transposed convolution as an ordinary one and a pixel shuffle, in place.

    Returns:
        Whether it was possible. One with different strides, of a picture whose size is not fixed,
        or that crops more than its kernel overlaps stays as it is.
    """
    x, stored, bias = _operands(node)
    if not is_constant(stored) or not (bias is None or is_constant(bias)):
        return False
    weight = get_tensor(module, stored.target)
    geometry = Geometry.of(node, weight)
    before, after = x.meta["val"].shape[2:], node.meta["val"].shape[2:]
    if not all(isinstance(size, int) for size in (*before, *after)):
        return False
    stride = geometry.stride[0]
    axes = geometry.axis(0), geometry.axis(1)
    places = [-(-size // stride) for size in after]
    # Zeros in front and behind, along the height and the width.
    margins = [
        (-axis.first, count - size + axis.last)
        for axis, count, size in zip(axes, places, before, strict=True)
    ]
    if geometry.stride[1] != stride or min(min(m) for m in margins) < 0:
        return False
    path = f"{node.name}_phases"
    opened = insert_constant(module, node, f"{path}_weight", phases_of(weight, geometry))
    if bias is not None:
        values = get_tensor(module, bias.target).repeat_interleave(stride**2)
        bias = insert_constant(module, node, f"{path}_bias", values)
    padding = [front for front, _ in margins]
    padded = any(front != back for front, back in margins)
    if padded:
        widths = [width for margin in reversed(margins) for width in margin]
        shape = (
            *x.meta["val"].shape[:2],
            *(n + sum(m) for n, m in zip(before, margins, strict=True)),
        )
        x, padding = _insert(module, node, shape, aten.pad.default, x, widths), [0, 0]
    convolution = (x, opened, bias, [1, 1], padding, [1, 1], geometry.groups)
    result = insert_shaped_call(module, node, aten.conv2d.default, *convolution)
    if stride > 1:
        shape = (*node.meta["val"].shape[:2], *(count * stride for count in places))
        result = _insert(module, node, shape, aten.pixel_shuffle.default, result, stride)
    for axis, (count, size) in enumerate(zip(places, after, strict=True), start=2):
        if count * stride > size:
            result = insert_shaped_call(module, node, aten.slice.Tensor, result, axis, 0, size)
    result.meta[ORIGIN] = Origin(geometry, padded)
    node.replace_all_uses_with(result)
    module.graph.erase_node(node)
    return True


def _insert(
    module: fx.GraphModule, before: fx.Node, shape: tuple[Any, ...], function: Any, *arguments: Any
) -> fx.Node:
    """Insert a call whose shape is said: torch would make a number of the free batch."""
    call = insert_call(module.graph, before, function, *arguments)
    call.meta["val"] = arguments[0].meta["val"].new_empty(shape)
    return call


def join_transposed_convolutions(module: fx.GraphModule) -> fx.GraphModule:
    """Return a copy with transposed convolutions where ``open_transposed_convolution`` found them.

    ONNX Runtime's float kernels compute those faster. One whose phases no longer belong together,
    since a stage has changed their weights or biases apart, stays open. The graph itself comes back
    if it has none.
    """
    if not any(ORIGIN in node.meta for node in module.graph.nodes):
        return module
    joined = copy_graph(module)
    for node in list(joined.graph.nodes):
        if ORIGIN in node.meta:
            _join(joined, node, node.meta[ORIGIN])
    return finish(joined)


def _join(module: fx.GraphModule, last: fx.Node, origin: Origin) -> None:
    convolution: Any = last
    while convolution.target in MOVES:
        convolution = convolution.args[0]
    x, opened, bias = _operands(convolution)
    geometry, phases = origin.geometry, get_tensor(module, opened.target)
    weight = weight_of_phases(phases, geometry)
    if not torch.equal(phases_of(weight, geometry), phases):
        return
    path = f"{last.name}_joined"
    if bias is not None:
        values = get_tensor(module, bias.target).reshape(-1, geometry.stride[0] ** 2)
        if not (values == values[:, :1]).all():
            return
        bias = insert_constant(module, last, f"{path}_bias", values[:, 0])
    if origin.padded:
        x = x.args[0]
    stored = insert_constant(module, last, f"{path}_weight", weight)
    transposed = (aten.conv_transpose2d.input, x, stored, bias, *geometry.arguments)
    call = insert_shaped_call(module, last, *transposed)
    call.meta["val"] = last.meta["val"]
    last.replace_all_uses_with(call)


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
