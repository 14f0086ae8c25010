"""Pools, sums over axes, normalisations, softmax and resizing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgedl.compress.adapters.onnx.node import Node
from edgedl.compress.adapters.onnx.operators.products import padded, window_pads
from edgedl.compress.adapters.onnx.values import (
    NotImportedError,
    Sizes,
    Value,
    numbers_of,
    product,
    sizes_of,
    tensor_of,
)

Function = Callable[..., Any]

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MEAN = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _window(node: Node, x: Tensor) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
    kernel = list(node.get("kernel_shape", []))
    strides = list(node.get("strides", [1] * len(kernel)))
    dilations = list(node.get("dilations", [1] * len(kernel)))
    before, after = window_pads(node, x, kernel, strides, dilations)
    return kernel, strides, dilations, before, after


def _max_pool(node: Node, x: Value) -> Tensor:
    if len([name for name in node.outputs if name]) > 1:
        raise NotImportedError("it also gives the places of the largest values")
    y = tensor_of(x)
    kernel, strides, dilations, before, after = _window(node, y)
    symmetric = before == after and all(2 * p <= k for p, k in zip(before, kernel, strict=True))
    if not symmetric:
        y = padded(y, before, after, float("-inf"))
    result: Tensor = _MAX[len(kernel)](
        y, tuple(kernel), tuple(strides), tuple(before) if symmetric else 0, tuple(dilations),
        bool(node.get("ceil_mode", 0)),
    )  # fmt: skip
    return result


def _average_pool(node: Node, x: Value) -> Tensor:
    y = tensor_of(x)
    kernel, strides, dilations, before, after = _window(node, y)
    if any(d != 1 for d in dilations):
        raise NotImportedError("it has dilations")
    symmetric = before == after and all(2 * p <= k for p, k in zip(before, kernel, strict=True))
    counts_pad = bool(node.get("count_include_pad", 0))
    if not symmetric and not counts_pad:
        if node.get("ceil_mode", 0):
            raise NotImportedError("it pads unevenly and rounds its size up")
        sizes = [1, 1, *y.shape[2:]]
        total, share = (
            _MEAN[len(kernel)](padded(part, before, after), tuple(kernel), tuple(strides))
            for part in (y, torch.ones(sizes))
        )
        return total / share
    if not symmetric:
        y = padded(y, before, after)
    result: Tensor = _MEAN[len(kernel)](
        y, tuple(kernel), tuple(strides), tuple(before) if symmetric else 0,
        bool(node.get("ceil_mode", 0)), counts_pad,
    )  # fmt: skip
    return result


def _global(function: Callable[[Tensor, tuple[int, ...]], Tensor]) -> Function:
    def call(node: Node, x: Value) -> Tensor:
        y = tensor_of(x)
        return function(y, tuple(range(2, y.ndim)))

    return call


def _reduction(function: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Function:
    def call(node: Node, x: Value, axes: Value | None = None) -> Value:
        chosen = node.axes((x, axes), 1)
        if isinstance(x, Sizes):
            if node.operator != "ReduceProd":
                raise NotImportedError("it computes with sizes")
            return Sizes((product(x.numbers),), scalar=not node.get("keepdims", 1))
        y = tensor_of(x)
        if not chosen:
            if node.get("noop_with_empty_axes", 0):
                return y
            chosen = tuple(range(y.ndim))
        return function(y, chosen, bool(node.get("keepdims", 1)))

    return call


def _product_over(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted((a % x.ndim for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _arg(function: Callable[..., Tensor]) -> Function:
    def call(node: Node, x: Value) -> Tensor:
        node.only("select_last_index", 0)
        return function(tensor_of(x), node.get("axis", 0), bool(node.get("keepdims", 1)))

    return call


def _batch_norm(node: Node, x: Value, scale: Value, bias: Value, mean: Value, var: Value) -> Tensor:
    node.only("training_mode", 0)
    return F.batch_norm(
        tensor_of(x), tensor_of(mean), tensor_of(var), tensor_of(scale), tensor_of(bias),
        False, 0.0, node.get("epsilon", 1e-5),
    )  # fmt: skip


def _instance_norm(node: Node, x: Value, scale: Value, bias: Value) -> Tensor:
    return F.instance_norm(
        tensor_of(x), weight=tensor_of(scale), bias=tensor_of(bias), eps=node.get("epsilon", 1e-5)
    )


def _layer_norm(node: Node, x: Value, scale: Value, bias: Value | None = None) -> Tensor:
    y = tensor_of(x)
    axis = node.get("axis", -1) % y.ndim
    shape = list(y.shape[axis:])
    weight = tensor_of(scale).expand(shape)
    shift = None if bias is None else tensor_of(bias).expand(shape)
    return F.layer_norm(y, shape, weight, shift, node.get("epsilon", 1e-5))


def _skip_layer_norm(node: Node, x: Value, skip: Value, scale: Value, beta: Value | None = None,
                     bias: Value | None = None) -> tuple[Tensor | None, ...]:  # fmt: skip
    y = tensor_of(x) + tensor_of(skip)
    y = y if bias is None else y + tensor_of(bias)
    shift = None if beta is None else tensor_of(beta)
    normed = F.layer_norm(y, [y.shape[-1]], tensor_of(scale), shift, node.get("epsilon", 1e-12))
    return normed, None, None, y


def _group_norm(node: Node, x: Value, scale: Value, bias: Value) -> Tensor:
    if node.opset < 21:
        raise NotImportedError("GroupNormalization of operator sets before 21 has other weights")
    return F.group_norm(
        tensor_of(x), node.get("num_groups", 1), tensor_of(scale), tensor_of(bias),
        node.get("epsilon", 1e-5),
    )  # fmt: skip


def _rms_norm(node: Node, x: Value, scale: Value) -> Tensor:
    y = tensor_of(x)
    axes = tuple(range(node.get("axis", -1) % y.ndim, y.ndim))
    mean = (y * y).mean(axes, keepdim=True)
    return y * torch.rsqrt(mean + node.get("epsilon", 1e-5)) * tensor_of(scale)


def _lp_norm(node: Node, x: Value) -> Tensor:
    y, axis = tensor_of(x), node.get("axis", -1)
    return F.normalize(y, node.get("p", 2), axis, 1e-30)


def _lrn(node: Node, x: Value) -> Tensor:
    return F.local_response_norm(
        tensor_of(x), node.get("size", 1), node.get("alpha", 1e-4), node.get("beta", 0.75),
        node.get("bias", 1.0),
    )  # fmt: skip


def _softmax(function: Callable[..., Tensor]) -> Function:
    def call(node: Node, x: Value) -> Tensor:
        y = tensor_of(x)
        axis = node.get("axis", 1 if node.opset < 13 else -1) % y.ndim
        if node.opset >= 13 or axis == y.ndim - 1:
            return function(y, dim=axis)
        # Older operator sets have one softmax over all axes from this one on.
        flat = function(y.flatten(axis), dim=axis)
        return flat.reshape(y.shape)

    return call


def _top_k(node: Node, x: Value, k: Value | None = None) -> tuple[Tensor, ...]:
    count = node.get("k", None) if k is None else sizes_of(k, "number")[0]
    return tuple(
        torch.topk(tensor_of(x), count, node.get("axis", -1), bool(node.get("largest", 1)))
    )


def _cumulative(node: Node, x: Value, axis: Value) -> Tensor:
    y, along = tensor_of(x), int(sizes_of(axis, "axis")[0])
    y = y.flip(along) if node.get("reverse", 0) else y
    total = y.cumsum(along)
    total = total - y if node.get("exclusive", 0) else total
    return total.flip(along) if node.get("reverse", 0) else total


def _resize(node: Node, x: Value, *given: Value | None) -> Tensor:
    y, mode = tensor_of(x), node.get("mode", "nearest")
    scales, sizes = _resize_to(node, given)
    where = node.get("coordinate_transformation_mode", "half_pixel")
    if node.operator == "Upsample" or (len(given) == 1 and node.opset < 11):
        where = "asymmetric"
    if node.get("axes", None) is not None or node.get("antialias", 0):
        raise NotImportedError("it has axes of its own, or antialias")
    if y.ndim not in (3, 4) or (sizes is None and scales is None):
        raise NotImportedError(f"it resizes a tensor of {y.ndim} axes")
    lead = (scales or sizes or [])[:2]
    if scales is not None and lead != [1.0, 1.0]:
        raise NotImportedError("it resizes the batch or the channels")
    if sizes is not None:
        target: tuple[Any, ...] = tuple(int(n) for n in sizes[2:])
    else:
        factors = (scales or [])[2:]
        target = tuple(int(n * s) for n, s in zip(y.shape[2:], factors, strict=True))
        exact = all(n * s == t for n, s, t in zip(y.shape[2:], factors, target, strict=True))
        if not exact and mode != "nearest":
            raise NotImportedError("its factors give no whole sizes")
    if mode == "nearest":
        return _nearest(node, y, target, where)
    return _interpolated(node, y, target, where)


def _interpolated(node: Node, x: Tensor, target: tuple[Any, ...], where: str) -> Tensor:
    """Resize by linear or cubic interpolation."""
    mode = node.get("mode", "nearest")
    kinds = {("linear", 3): "linear", ("linear", 4): "bilinear", ("cubic", 4): "bicubic"}
    kind = kinds.get((mode, x.ndim))
    if kind is None or where not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise NotImportedError(f"it resizes by {mode} with {where}")
    if where == "pytorch_half_pixel" and 1 in target:
        raise NotImportedError("it resizes to a size of 1 with pytorch_half_pixel")
    if mode == "cubic" and node.get("cubic_coeff_a", -0.75) != -0.75:
        raise NotImportedError("its cubic_coeff_a is not -0.75")
    return F.interpolate(x, size=target, mode=kind, align_corners=where == "align_corners")


def _resize_to(
    node: Node, given: tuple[Value | None, ...]
) -> tuple[list[float] | None, list[float] | None]:
    """Return the factors, or the sizes, that a node resizes to."""
    if "scales" in node.attributes:
        return list(node.get("scales", [])), None
    if len(given) == 1:
        return numbers_of(given[0], "factors"), None  # type: ignore[arg-type]
    sizes = given[2] if len(given) > 2 else None
    if sizes is not None:
        return None, numbers_of(sizes, "sizes")
    factors = given[1] if len(given) > 1 else None
    return (None, None) if factors is None else (numbers_of(factors, "factors"), None)


def _nearest(node: Node, x: Tensor, target: tuple[Any, ...], where: str) -> Tensor:
    """Resize by the nearest value; torch's own where its rule, the left edge down, is meant."""
    rounding = node.get("nearest_mode", "round_prefer_floor")
    if node.operator == "Upsample" or node.opset < 11:
        where, rounding = "asymmetric", "floor"
    places = [_places(n, t, where, rounding) for n, t in zip(x.shape[2:], target, strict=True)]
    lower = [[int(i * n / t) for i in range(t)] for n, t in zip(x.shape[2:], target, strict=True)]
    if places == lower:
        return F.interpolate(x, size=target, mode="nearest")
    for axis, chosen in enumerate(places, start=2):
        x = torch.index_select(x, axis, torch.tensor(chosen))
    return x


def _places(size: Any, target: int, where: str, rounding: str) -> list[int]:
    """Return from which value each of the resized ones is taken.

    Raises:
        NotImportedError: the size is free, or a rule is not known.
    """
    if not isinstance(size, int):
        raise NotImportedError("it resizes a height or width that is free")
    index = np.arange(target, dtype=np.float64)
    scale = target / size
    rules = {
        "half_pixel": (index + 0.5) / scale - 0.5,
        "pytorch_half_pixel": (index + 0.5) / scale - 0.5 if target > 1 else index * 0,
        "asymmetric": index / scale,
        "align_corners": index * (size - 1) / max(1, target - 1),
    }
    roundings: dict[str, Callable[[Any], Any]] = {
        "floor": np.floor,
        "ceil": np.ceil,
        "round_prefer_floor": lambda p: np.ceil(p - 0.5),
        "round_prefer_ceil": lambda p: np.floor(p + 0.5),
    }
    if where not in rules or rounding not in roundings:
        raise NotImportedError(f"it resizes by nearest with {where} and {rounding}")
    found = np.clip(roundings[rounding](rules[where]), 0, size - 1)
    return [int(place) for place in found]


OPERATORS: dict[str, Function] = {
    "MaxPool": _max_pool, "AveragePool": _average_pool,
    "GlobalAveragePool": _global(lambda x, axes: x.mean(axes, keepdim=True)),
    "GlobalMaxPool": _global(lambda x, axes: x.amax(axes, keepdim=True)),
    "ReduceMean": _reduction(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceSum": _reduction(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "ReduceMax": _reduction(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "ReduceMin": _reduction(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "ReduceProd": _reduction(_product_over),
    "ReduceL1": _reduction(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)),
    "ReduceL2": _reduction(lambda x, axes, keep: (x * x).sum(axes, keepdim=keep).sqrt()),
    "ReduceSumSquare": _reduction(lambda x, axes, keep: (x * x).sum(axes, keepdim=keep)),
    "ReduceLogSum": _reduction(lambda x, axes, keep: x.sum(axes, keepdim=keep).log()),
    "ReduceLogSumExp": _reduction(lambda x, axes, keep: x.logsumexp(axes, keepdim=keep)),
    "ArgMax": _arg(torch.argmax), "ArgMin": _arg(torch.argmin), "TopK": _top_k,
    "CumSum": _cumulative, "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm, "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm, "RMSNormalization": _rms_norm,
    "LpNormalization": _lp_norm, "LRN": _lrn, "Softmax": _softmax(F.softmax),
    "LogSoftmax": _softmax(F.log_softmax), "Resize": _resize, "Upsample": _resize,
    "com.microsoft.LayerNormalization": _layer_norm,
    "com.microsoft.SkipLayerNormalization": _skip_layer_norm,
}  # fmt: skip
