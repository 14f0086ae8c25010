"""Operators that compute each element for itself, and those that choose or compare."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgedl.compress.adapters.onnx.node import Node
from edgedl.compress.adapters.onnx.values import (
    Constant,
    NotImportedError,
    Sizes,
    Value,
    number_of,
    numbers_of,
    tensor_of,
)

Function = Callable[..., Any]


def _unary(function: Callable[[Tensor], Tensor]) -> Function:
    return lambda node, x: function(tensor_of(x))


def _binary(function: Callable[[Any, Any], Any], on_sizes: bool = False) -> Function:
    """Return the function of two tensors; of sizes it gives sizes."""

    def call(node: Node, a: Value, b: Value) -> Value:
        if on_sizes and (isinstance(a, Sizes) or isinstance(b, Sizes)):
            found = _both_sizes(a, b)
            if found is not None:
                (left, right), scalar = found
                each = zip(left, right, strict=True)
                return Sizes(tuple(function(x, y) for x, y in each), scalar)
        left_tensor, right_tensor = _promoted(tensor_of(a), tensor_of(b))
        result: Tensor = function(left_tensor, right_tensor)
        return result

    return call


def _both_sizes(a: Value, b: Value) -> tuple[tuple[Any, Any], bool] | None:
    """Return two rows of whole numbers of one length, and whether they are single numbers."""
    parts, scalars = [], []
    for value in (a, b):
        if isinstance(value, Sizes):
            parts.append(value.numbers)
            scalars.append(value.scalar)
        elif isinstance(value, Constant) and value.array is not None and value.array.ndim < 2:
            if value.array.dtype.kind not in "iu":
                return None
            parts.append(tuple(int(n) for n in value.array.reshape(-1)))
            scalars.append(value.array.ndim == 0)
        else:
            return None
    size = max(len(parts[0]), len(parts[1]))
    if any(len(part) not in (1, size) for part in parts):
        return None
    left, right = (part * size if len(part) == 1 else part for part in parts)
    return (left, right), all(scalars)


def _promoted(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return two tensors of one type: integers beside floats are numbers of the file's."""
    if a.is_floating_point() and not b.is_floating_point() and b.dtype != torch.bool:
        return a, b.to(a.dtype)
    if b.is_floating_point() and not a.is_floating_point() and a.dtype != torch.bool:
        return a.to(b.dtype), b
    return a, b


def _divide(a: Any, b: Any) -> Any:
    if isinstance(a, Tensor) and not a.is_floating_point():
        return torch.div(a, b, rounding_mode="trunc")
    return a / b if isinstance(a, Tensor) else a // b


def _mod(node: Node, a: Value, b: Value) -> Tensor:
    x, y = _promoted(tensor_of(a), tensor_of(b))
    return torch.fmod(x, y) if node.get("fmod", 0) else torch.remainder(x, y)


def _power(node: Node, a: Value, b: Value) -> Tensor:
    x = tensor_of(a)
    if isinstance(b, Constant) and b.array is not None and b.array.size == 1:
        exponent = float(b.array.reshape(-1)[0])
        if exponent == 2:
            return x * x
        if exponent == 0.5:
            return torch.sqrt(x)
        return torch.pow(x, exponent)
    return torch.pow(x, tensor_of(b)).to(x.dtype)


def _clip(node: Node, x: Value, low: Value | None = None, high: Value | None = None) -> Tensor:
    least = node.get("min", number_of(low, -math.inf, "bounds"))
    most = node.get("max", number_of(high, math.inf, "bounds"))
    y = tensor_of(x)
    if (least, most) == (0.0, 6.0):
        return F.relu6(y)
    if least <= -3.4e38 and most >= 3.4e38:
        return y
    bounds = (None if least <= -3.4e38 else least, None if most >= 3.4e38 else most)
    if bounds == (0.0, None):
        return F.relu(y)
    return torch.clamp(y, *bounds)


def _gelu(node: Node, x: Value) -> Tensor:
    return F.gelu(tensor_of(x), approximate=node.get("approximate", "none"))


def _hard_sigmoid(node: Node, x: Value) -> Tensor:
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    y = tensor_of(x)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return F.hardsigmoid(y)
    return torch.clamp(y * alpha + beta, 0.0, 1.0)


def _prelu(node: Node, x: Value, slope: Value) -> Tensor:
    y, weight = tensor_of(x), tensor_of(slope)
    if weight.numel() == 1:
        return F.prelu(y, weight.reshape(1))
    if y.ndim > 1 and weight.ndim == y.ndim - 1 and weight.numel() == y.shape[1]:
        return F.prelu(y, weight.reshape(-1))
    return torch.where(y >= 0, y, y * weight)


def _cast(node: Node, x: Value) -> Value:
    kind = _TYPES.get(node.get("to", 1))
    if kind is None:
        raise NotImportedError(f"it casts to the type number {node.get('to', 1)}")
    if isinstance(x, Sizes) and kind == torch.int64:
        return x
    return tensor_of(x).to(kind)


# Numbers of ONNX's types; floats are computed in float32, integers in int64.
_TYPES = {
    1: torch.float32, 10: torch.float32, 11: torch.float32, 16: torch.float32,
    2: torch.int64, 3: torch.int64, 4: torch.int64, 5: torch.int64, 6: torch.int64,
    7: torch.int64, 12: torch.int64, 13: torch.int64, 9: torch.bool,
}  # fmt: skip


def _where(node: Node, condition: Value, a: Value, b: Value) -> Value:
    if isinstance(condition, Constant) and condition.array is not None and condition.array.size:
        chosen = condition.array.reshape(-1)
        found = _both_sizes(a, b)
        if found is not None and (isinstance(a, Sizes) or isinstance(b, Sizes)):
            (left, right), scalar = found
            picks = zip(chosen, left, right, strict=False)
            return Sizes(tuple(x if yes else y for yes, x, y in picks), scalar)
    x, y = _promoted(tensor_of(a), tensor_of(b))
    return torch.where(tensor_of(condition), x, y)


def _fold(function: Callable[[Tensor, Tensor], Tensor]) -> Function:
    """Return the function of any number of tensors, two at a time."""

    def call(node: Node, *inputs: Value) -> Tensor:
        result = tensor_of(inputs[0])
        for other in inputs[1:]:
            result = function(result, tensor_of(other))
        return result

    return call


def _mean(node: Node, *inputs: Value) -> Tensor:
    total = tensor_of(inputs[0])
    for other in inputs[1:]:
        total = total + tensor_of(other)
    return total / len(inputs)


def _equal(node: Node, a: Value, b: Value) -> Value:
    found = _both_sizes(a, b) if isinstance(a, Sizes) or isinstance(b, Sizes) else None
    if found is not None and all(isinstance(n, int) for part in found[0] for n in part):
        answers = [x == y for x, y in zip(*found[0], strict=True)]
        tensor = torch.tensor(answers[0] if found[1] else answers)
        return Constant(tensor, tensor.numpy())
    return torch.eq(*_promoted(tensor_of(a), tensor_of(b)))


def _is_infinite(node: Node, x: Value) -> Tensor:
    node.only("detect_positive", 1)
    node.only("detect_negative", 1)
    return torch.isinf(tensor_of(x))


def _negative(node: Node, x: Value) -> Value:
    if isinstance(x, Sizes):
        return Sizes(tuple(-n for n in x.numbers), x.scalar)
    return torch.neg(tensor_of(x))


def _dropout(node: Node, x: Value, *rest: Value | None) -> Value:
    return x


def _mish(x: Tensor) -> Tensor:
    return F.mish(x)


def _shrink(node: Node, x: Value) -> Tensor:
    bias, lambd = node.get("bias", 0.0), node.get("lambd", 0.5)
    y = tensor_of(x)
    zero = torch.zeros_like(y)
    return torch.where(y < -lambd, y + bias, torch.where(y > lambd, y - bias, zero))


def _one_hot(node: Node, indices: Value, depth: Value, values: Value) -> Tensor:
    node.only("axis", -1)
    count = int(number_of(depth, 0, "depth"))
    off, on = numbers_of(values, "values")
    places = tensor_of(indices).long() % count
    hot = places.unsqueeze(-1) == torch.arange(count)
    return torch.where(hot, torch.tensor(on), torch.tensor(off))


OPERATORS: dict[str, Function] = {
    "Abs": _unary(torch.abs), "Acos": _unary(torch.acos), "Acosh": _unary(torch.acosh),
    "Asin": _unary(torch.asin), "Asinh": _unary(torch.asinh), "Atan": _unary(torch.atan),
    "Atanh": _unary(torch.atanh), "Ceil": _unary(torch.ceil), "Cos": _unary(torch.cos),
    "Cosh": _unary(torch.cosh), "Erf": _unary(torch.erf), "Exp": _unary(torch.exp),
    "Floor": _unary(torch.floor), "HardSwish": _unary(F.hardswish), "IsInf": _is_infinite,
    "IsNaN": _unary(torch.isnan), "Log": _unary(torch.log), "Mish": _unary(_mish),
    "Neg": _negative, "Not": _unary(torch.logical_not), "Reciprocal":
    _unary(torch.reciprocal), "Relu": _unary(F.relu), "Round": _unary(torch.round),
    "Sigmoid": _unary(torch.sigmoid), "Sign": _unary(torch.sign), "Sin": _unary(torch.sin),
    "Sinh": _unary(torch.sinh), "Softplus": _unary(F.softplus), "Softsign": _unary(F.softsign),
    "Sqrt": _unary(torch.sqrt), "Tan": _unary(torch.tan), "Tanh": _unary(torch.tanh),
    "Identity": _dropout, "Dropout": _dropout,
    "Swish": lambda node, x: tensor_of(x) * torch.sigmoid(node.get("alpha", 1.0) * tensor_of(x)),
    "Add": _binary(lambda a, b: a + b, True), "Sub": _binary(lambda a, b: a - b, True),
    "Mul": _binary(lambda a, b: a * b, True), "Div": _binary(_divide, True),
    "And": _binary(torch.logical_and), "Or": _binary(torch.logical_or),
    "Xor": _binary(torch.logical_xor), "Equal": _equal, "Greater": _binary(torch.gt),
    "GreaterOrEqual": _binary(torch.ge), "Less": _binary(torch.lt),
    "LessOrEqual": _binary(torch.le), "Mod": _mod, "Pow": _power, "Where": _where,
    "Max": _fold(torch.maximum), "Min": _fold(torch.minimum), "Sum": _fold(torch.add),
    "Mean": _mean, "Cast": _cast, "CastLike": lambda node, x, like:
    tensor_of(x).to(tensor_of(like).dtype), "Clip": _clip, "Gelu": _gelu, "OneHot": _one_hot,
    "HardSigmoid": _hard_sigmoid, "PRelu": _prelu, "Shrink": _shrink,
    "Celu": lambda node, x: F.celu(tensor_of(x), node.get("alpha", 1.0)),
    "Elu": lambda node, x: F.elu(tensor_of(x), node.get("alpha", 1.0)),
    "LeakyRelu": lambda node, x: F.leaky_relu(tensor_of(x), node.get("alpha", 0.01)),
    "Selu": lambda node, x: _selu(node, tensor_of(x)),
    "ThresholdedRelu": lambda node, x: F.threshold(tensor_of(x), node.get("alpha", 1.0), 0.0),
    "com.microsoft.Gelu": _gelu,
    "com.microsoft.BiasGelu": lambda node, x, b: F.gelu(tensor_of(x) + tensor_of(b)),
    "com.microsoft.FastGelu": lambda node, x, b=None: F.gelu(
        tensor_of(x) if b is None else tensor_of(x) + tensor_of(b), approximate="tanh"),
    "com.microsoft.QuickGelu": lambda node, x: tensor_of(x) * torch.sigmoid(
        node.get("alpha", 1.702) * tensor_of(x)),
}  # fmt: skip


def _selu(node: Node, x: Tensor) -> Tensor:
    alpha, gamma = node.get("alpha", 1.67326319217681884765625), node.get("gamma", 1.05070102214813)
    return partial(torch.mul, gamma)(torch.where(x > 0, x, alpha * torch.expm1(x)))
