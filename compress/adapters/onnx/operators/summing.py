"""Pools, sums over axes, normalisations and softmax."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgedl.compress.adapters.onnx.node import Node
from edgedl.compress.adapters.onnx.operators.products import padded, window_pads
from edgedl.compress.adapters.onnx.values import (
    NotImportedError,
    Sizes,
    Value,
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
    "LogSoftmax": _softmax(F.log_softmax),
    "com.microsoft.LayerNormalization": _layer_norm,
    "com.microsoft.SkipLayerNormalization": _skip_layer_norm,
}  # fmt: skip
