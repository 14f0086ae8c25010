"""Operators that move, join, cut and make tensors, and those that compute with sizes."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgedl.compress.adapters.onnx.node import Node
from edgedl.compress.adapters.onnx.values import (
    Constant,
    NotImportedError,
    Sizes,
    Value,
    constant_of,
    number_of,
    numbers_of,
    product,
    sizes_of,
    tensor_of,
)

Function = Callable[..., Any]


def _constant(node: Node) -> Value:
    for name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        if name in node.attributes:
            found = node.attributes[name]
            return found if isinstance(found, Constant) else constant_of(np.asarray(found))
    raise NotImportedError("it stores text or a sparse tensor")


def _constant_of_shape(node: Node, shape: Value) -> Value:
    filling: Constant = node.get("value", constant_of(np.zeros(1, np.float32)))
    value = np.asarray(filling.array).reshape(-1)[0]
    sizes = sizes_of(shape, "sizes")
    kind = filling.tensor.dtype
    if len(sizes) == 1 and isinstance(sizes[0], int) and kind == torch.int64:
        return Sizes((int(value),) * sizes[0])
    return torch.full(tuple(sizes), value.item(), dtype=kind)


def _shape(node: Node, x: Value) -> Sizes:
    sizes = tuple(tensor_of(x).shape) if not isinstance(x, Sizes) else (len(x.numbers),)
    start, end = node.get("start", 0), node.get("end", len(sizes))
    return Sizes(sizes[start:end])


def _size(node: Node, x: Value) -> Sizes:
    return Sizes((product(tensor_of(x).shape),), scalar=True)


def _reshape(node: Node, x: Value, shape: Value | None = None) -> Value:
    wanted = node.get("shape", None) if shape is None else sizes_of(shape, "sizes")
    if isinstance(x, Sizes) and len(wanted) < 2:
        return Sizes(x.numbers, scalar=len(wanted) == 0)
    y = tensor_of(x)
    sizes: list[Any] = list(wanted)
    if not node.get("allowzero", 0):
        sizes = [y.shape[i] if isinstance(n, int) and n == 0 else n for i, n in enumerate(sizes)]
    return y.reshape(_freed(y, sizes, node.batch_axis))


def _freed(x: Tensor, sizes: list[Any], batch_axis: int | None) -> list[Any]:
    """Return a shape with the batch in its place; as it is where it names none."""
    if batch_axis is None:
        return sizes
    if -1 not in sizes:
        return [-1 if axis == batch_axis else n for axis, n in enumerate(sizes)]
    free = [x.shape[0], *sizes[1:]]
    rest = [n for n in free[1:] if n != -1]
    free[1 + free[1:].index(-1)] = product(x.shape[1:]) // product(rest)
    return free


def _flatten(node: Node, x: Value) -> Tensor:
    y, axis = tensor_of(x), node.get("axis", 1)
    axis = axis + y.ndim if axis < 0 else axis
    if axis == 1:
        return torch.flatten(y, 1)
    return y.reshape(product(y.shape[:axis]), product(y.shape[axis:]))


def _transpose(node: Node, x: Value) -> Tensor:
    y = tensor_of(x)
    return y.permute(node.get("perm", list(range(y.ndim))[::-1]))


def _squeeze(node: Node, x: Value, axes: Value | None = None) -> Value:
    chosen = node.axes((x, axes), 1)
    if isinstance(x, Sizes) and len(x.numbers) == 1:
        return Sizes(x.numbers, scalar=True)
    y = tensor_of(x)
    if chosen is None:
        chosen = tuple(i for i, n in enumerate(y.shape) if isinstance(n, int) and n == 1)
    for axis in sorted((a % y.ndim for a in chosen), reverse=True):
        y = y.squeeze(axis)
    return y


def _unsqueeze(node: Node, x: Value, axes: Value | None = None) -> Value:
    chosen = node.axes((x, axes), 1) or ()
    if isinstance(x, Sizes) and x.scalar and len(chosen) == 1:
        return Sizes(x.numbers)
    y = tensor_of(x)
    count = y.ndim + len(chosen)
    for axis in sorted(a % count for a in chosen):
        y = y.unsqueeze(axis)
    return y


def _concat(node: Node, *inputs: Value) -> Value:
    if any(isinstance(x, Sizes) for x in inputs):
        numbers = [n for x in inputs for n in sizes_of(x, "sizes")]
        return Sizes(tuple(numbers))
    tensors = [tensor_of(x) for x in inputs]
    if node.batch_axis is not None:
        batch = next(t.shape[0] for t in tensors if not _is_one(t.shape[0]))
        tensors = [t.expand(batch, *t.shape[1:]) if _is_one(t.shape[0]) else t for t in tensors]
    return torch.cat(tensors, node.get("axis", 1))


def _is_one(size: Any) -> bool:
    return isinstance(size, int) and size == 1


def _gather(node: Node, x: Value, indices: Value) -> Value:
    axis = node.get("axis", 0)
    if isinstance(x, Sizes):
        chosen = sizes_of(indices, "places")
        scalar = (isinstance(indices, Sizes) and indices.scalar) or (
            isinstance(indices, Constant) and indices.array is not None and indices.array.ndim == 0
        )
        return Sizes(tuple(x.numbers[place] for place in chosen), scalar)
    y = tensor_of(x)
    if isinstance(indices, Constant) and indices.array is not None and indices.array.ndim == 0:
        return y.select(axis, int(indices.array))
    places = tensor_of(indices)
    if axis == 0 and y.ndim == 2 and y.is_floating_point():
        if isinstance(indices, Constant):
            places = torch.where(places < 0, places + y.shape[0], places)
        return F.embedding(places, y)
    axis = axis % y.ndim
    flat = torch.where(places < 0, places + y.shape[axis], places).reshape(-1)
    found = torch.index_select(y, axis, flat)
    return found.reshape(*y.shape[:axis], *places.shape, *y.shape[axis + 1 :])


def _gather_elements(node: Node, x: Value, indices: Value) -> Tensor:
    y, axis = tensor_of(x), node.get("axis", 0)
    places = tensor_of(indices)
    return torch.gather(y, axis, torch.where(places < 0, places + y.shape[axis], places))


def _slice(node: Node, x: Value, *given: Value | None) -> Value:
    if "starts" in node.attributes:
        starts, ends = node.get("starts", []), node.get("ends", [])
        axes, steps = node.get("axes", None), None
    else:
        parts: list[Any] = [None if v is None else sizes_of(v, "bounds") for v in given]
        starts, ends, axes, steps = [*parts, None, None, None, None][:4]
    along = list(range(len(starts))) if axes is None else list(axes)
    strides = [1] * len(starts) if steps is None else list(steps)
    if isinstance(x, Sizes):
        return Sizes(x.numbers[starts[0] : ends[0] : strides[0]])
    y = tensor_of(x)
    for axis, start, end, step in zip(along, starts, ends, strides, strict=True):
        y = _cut(y, axis % y.ndim, start, end, step)
    return y


def _cut(x: Tensor, axis: int, start: Any, end: Any, step: Any) -> Tensor:
    if step > 0:
        if isinstance(end, int) and end > 2**31:
            end = None
        return x[(*[slice(None)] * axis, slice(start, end, step))]
    size = x.shape[axis]
    if not isinstance(size, int):
        raise NotImportedError("it goes backwards along an axis of free size")
    places = list(range(size))[slice(start, None if end < -size else end, step)]
    if places == list(range(size))[::-1]:
        return x.flip(axis)
    return torch.index_select(x, axis, torch.tensor(places))


def _split(node: Node, x: Value, parts: Value | None = None) -> tuple[Value, ...]:
    axis = node.get("axis", 0)
    sizes = node.get("split", None) if parts is None else sizes_of(parts, "sizes")
    if isinstance(x, Sizes):
        sizes = sizes or [len(x.numbers) // len(node.outputs)] * len(node.outputs)
        ends = itertools.accumulate(sizes)
        return tuple(Sizes(x.numbers[e - n : e]) for e, n in zip(ends, sizes, strict=True))
    y = tensor_of(x)
    if sizes is None:
        step = -(-y.shape[axis] // len(node.outputs))
        return torch.split(y, step, axis)
    return torch.split(y, list(sizes), axis)


def _expand(node: Node, x: Value, shape: Value) -> Tensor:
    y, sizes = tensor_of(x), list(sizes_of(shape, "sizes"))
    own = [1] * (len(sizes) - y.ndim) + list(y.shape)
    sizes = [1] * (len(own) - len(sizes)) + sizes
    wanted = [a if isinstance(n, int) and n == 1 else n for a, n in zip(own, sizes, strict=True)]
    return y.expand(wanted)


def _tile(node: Node, x: Value, repeats: Value) -> Tensor:
    return tensor_of(x).repeat(*sizes_of(repeats, "repeats"))


def _pad(node: Node, x: Value, pads: Value | None = None, value: Value | None = None,
         axes: Value | None = None) -> Tensor:  # fmt: skip
    y, mode = tensor_of(x), node.get("mode", "constant")
    sizes = list(node.get("pads", None) or sizes_of(pads, "sizes"))  # type: ignore[arg-type]
    chosen = list(range(y.ndim)) if axes is None else [a % y.ndim for a in sizes_of(axes, "axes")]
    half = len(sizes) // 2
    before, after = [0] * y.ndim, [0] * y.ndim
    for place, axis in enumerate(chosen):
        before[axis], after[axis] = sizes[place], sizes[half + place]
    filling = node.get("value", number_of(value, 0.0, "value"))
    torch_pads = [n for axis in reversed(range(y.ndim)) for n in (before[axis], after[axis])]
    while len(torch_pads) > 2 and torch_pads[-2:] == [0, 0]:
        torch_pads = torch_pads[:-2]
    if not any(torch_pads):
        return y
    if mode == "constant":
        kind = y.dtype
        return F.pad(y, torch_pads, value=bool(filling) if kind == torch.bool else filling)
    known = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    if mode not in known or any(n < 0 for n in torch_pads):
        raise NotImportedError(f"its mode is {mode}, or it pads by less than 0")
    return _pad_by(y, torch_pads, known[mode])


def _pad_by(x: Tensor, pads: list[int], mode: str) -> Tensor:
    """Pad the last axes, which torch takes with one or two axes in front of them alone."""
    count = len(pads) // 2
    if count > 3 or x.ndim < count:
        raise NotImportedError("it pads more than three axes otherwise than by a constant")
    lead = x.shape[: x.ndim - count]
    flat = x.reshape(1, product(lead), *x.shape[x.ndim - count :])
    padded = F.pad(flat, pads, mode=mode)
    return padded.reshape(*lead, *padded.shape[2:])


def _range(node: Node, start: Value, limit: Value, delta: Value) -> Value:
    numbers: list[Any] = [
        sizes_of(v, "bounds") if isinstance(v, Sizes) else numbers_of(v, "bounds")
        for v in (start, limit, delta)
    ]
    first, last, step = (part[0] for part in numbers)
    whole = all(not isinstance(n, float) or float(n).is_integer() for n in (first, last, step))
    if whole:
        first, last, step = (int(n) if isinstance(n, float) else n for n in (first, last, step))
    is_float = any(isinstance(v, Constant) and v.tensor.is_floating_point()
                   for v in (start, limit, delta))  # fmt: skip
    if not is_float and all(isinstance(n, int) for n in (first, last, step)):
        return Sizes(tuple(range(first, last, step)))
    return torch.arange(first, last, step, dtype=torch.float32 if is_float else torch.int64)


def _depth_to_space(node: Node, x: Value) -> Tensor:
    y, block = tensor_of(x), node.get("blocksize", 1)
    if node.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(y, block)
    n, c, h, w = y.shape
    parts = y.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c // block**2, h * block, w * block)


def _space_to_depth(node: Node, x: Value) -> Tensor:
    node.only("mode", "DCR")
    y, block = tensor_of(x), node.get("blocksize", 1)
    n, c, h, w = y.shape
    parts = y.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(n, c * block**2, h // block, w // block)


def _trilu(node: Node, x: Value, k: Value | None = None) -> Tensor:
    diagonal = int(number_of(k, 0, "diagonal"))
    function = torch.triu if node.get("upper", 1) else torch.tril
    return function(tensor_of(x), diagonal)


OPERATORS: dict[str, Function] = {
    "Constant": _constant, "ConstantOfShape": _constant_of_shape, "Shape": _shape, "Size": _size,
    "Reshape": _reshape, "Flatten": _flatten, "Transpose": _transpose, "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze, "Concat": _concat, "Gather": _gather,
    "GatherElements": _gather_elements, "Slice": _slice, "Split": _split, "Expand": _expand,
    "Tile": _tile, "Pad": _pad, "Range": _range, "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth, "Trilu": _trilu,
}  # fmt: skip
