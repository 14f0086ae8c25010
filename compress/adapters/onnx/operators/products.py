"""Convolutions, matrix products and recurrent layers."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgedl.compress.adapters.onnx.node import Node
from edgedl.compress.adapters.onnx.values import (
    NotImportedError,
    Value,
    tensor_of,
)

Function = Callable[..., Any]

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def window_pads(
    node: Node, x: Tensor, kernel: list[int], strides: list[int], dilations: list[int]
) -> tuple[list[int], list[int]]:
    """Return what a window operator pads before and after each axis of space.

    Raises:
        NotImportedError: it pads to a size that is free.
    """
    count = len(kernel)
    mode = node.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        pads = node.get("pads", [0] * 2 * count)
        return list(pads[:count]), list(pads[count:])
    if mode == "VALID":
        return [0] * count, [0] * count
    before, after = [], []
    for size, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        if not isinstance(size, int):
            raise NotImportedError(f"auto_pad {mode} with a free height or width")
        total = max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
        small, large = total // 2, total - total // 2
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
    return before, after


def padded(x: Tensor, before: list[int], after: list[int], value: float = 0.0) -> Tensor:
    """Return a tensor with its last axes padded."""
    pads = [n for a, b in zip(reversed(before), reversed(after), strict=True) for n in (a, b)]
    return F.pad(x, pads, value=value) if any(pads) else x


def _convolution(node: Node, x: Value, weight: Value, bias: Value | None = None) -> Tensor:
    y, w = tensor_of(x), tensor_of(weight)
    count = w.ndim - 2
    if count not in _CONVOLUTIONS:
        raise NotImportedError(f"it convolves {count} axes")
    strides, dilations = node.get("strides", [1] * count), node.get("dilations", [1] * count)
    before, after = window_pads(node, y, list(w.shape[2:]), strides, dilations)
    symmetric = before == after
    if not symmetric:
        y = padded(y, before, after)
    result: Tensor = _CONVOLUTIONS[count](
        y, w, None if bias is None else tensor_of(bias), tuple(strides),
        tuple(before) if symmetric else 0, tuple(dilations), node.get("group", 1),
    )  # fmt: skip
    return result


def _fused_convolution(node: Node, x: Value, weight: Value, bias: Value | None = None,
                       add: Value | None = None) -> Tensor:  # fmt: skip
    y = _convolution(node, x, weight, bias)
    y = y if add is None else y + tensor_of(add)
    return _activated(node, y)


def _activated(node: Node, y: Tensor) -> Tensor:
    name, numbers = node.get("activation", ""), node.get("activation_params", [])
    if not name:
        return y
    known: dict[str, Callable[[], Tensor]] = {
        "Relu": lambda: F.relu(y),
        "Sigmoid": lambda: torch.sigmoid(y),
        "Tanh": lambda: torch.tanh(y),
        "LeakyRelu": lambda: F.leaky_relu(y, numbers[0]),
        "Clip": lambda: torch.clamp(y, numbers[0], numbers[1]),
        "HardSigmoid": lambda: torch.clamp(y * numbers[0] + numbers[1], 0, 1),
    }
    if name not in known:
        raise NotImportedError(f"its activation is {name}")
    return known[name]()


def _transposed(node: Node, x: Value, weight: Value, bias: Value | None = None) -> Tensor:
    y, w = tensor_of(x), tensor_of(weight)
    count = w.ndim - 2
    strides, dilations = node.get("strides", [1] * count), node.get("dilations", [1] * count)
    extra = list(node.get("output_padding", [0] * count))
    kernel = list(w.shape[2:])
    mode, wanted = node.get("auto_pad", "NOTSET"), node.get("output_shape", None)
    pads = list(node.get("pads", [0] * 2 * count))
    if wanted is not None or mode in ("SAME_UPPER", "SAME_LOWER"):
        sizes = list(y.shape[2:])
        targets = (
            wanted[-count:]
            if wanted is not None
            else [n * s for n, s in zip(sizes, strides, strict=True)]
        )
        for i, (n, s, k, d, o) in enumerate(
            zip(sizes, strides, kernel, dilations, targets, strict=True)
        ):
            total = s * (n - 1) + extra[i] + (k - 1) * d + 1 - o
            small, large = total // 2, total - total // 2
            pads[i], pads[count + i] = (small, large) if mode == "SAME_UPPER" else (large, small)
    before, after = pads[:count], pads[count:]
    symmetric = before == after
    result: Tensor = _TRANSPOSED[count](
        y, w, None if bias is None else tensor_of(bias), tuple(strides),
        tuple(before) if symmetric else 0, tuple(extra), node.get("group", 1), tuple(dilations),
    )  # fmt: skip
    return result if symmetric else padded(result, [-n for n in before], [-n for n in after])


def _matmul(node: Node, a: Value, b: Value) -> Tensor:
    x, w = tensor_of(a), tensor_of(b)
    return torch.matmul(x, w)


def _gemm(node: Node, a: Value, b: Value, c: Value | None = None) -> Tensor:
    x, w = tensor_of(a), tensor_of(b)
    x = x.t() if node.get("transA", 0) else x
    weight = w if node.get("transB", 0) else w.t()
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    bias = None if c is None else tensor_of(c)
    plain = bias is None or (bias.ndim == 1 and bias.shape[0] == weight.shape[0])
    if alpha == 1.0 and plain and (beta == 1.0 or bias is None):
        return F.linear(x, weight, bias)
    y: Tensor = F.linear(x, weight) * alpha
    return y if bias is None else y + bias * beta


def _fused_matmul(node: Node, a: Value, b: Value) -> Tensor:
    x, w = tensor_of(a), tensor_of(b)
    x = x.transpose(-1, -2) if node.get("transA", 0) else x
    w = w.transpose(-1, -2) if node.get("transB", 0) else w
    y = torch.matmul(x, w)
    alpha: float = node.get("alpha", 1.0)
    return y if alpha == 1.0 else y * alpha


def _einsum(node: Node, *inputs: Value) -> Tensor:
    result: Tensor = torch.einsum(node.get("equation", ""), *(tensor_of(x) for x in inputs))
    return result


# ONNX orders the gates otherwise than torch: i o f c and i f c o; z r h and r z n.
_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_ACTIVATIONS = {
    "LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"],
}  # fmt: skip


def _recurrent(node: Node, x: Value, weight: Value, states: Value, bias: Value | None = None,
               lengths: Value | None = None, hidden: Value | None = None,
               cell: Value | None = None,
               peepholes: Value | None = None) -> tuple[Tensor, ...]:  # fmt: skip
    kind = node.operator
    if lengths is not None or peepholes is not None:
        raise NotImportedError("it has lengths of sequences, or peepholes")
    direction = node.get("direction", "forward")
    count = 2 if direction == "bidirectional" else 1
    given = node.get("activations", _ACTIVATIONS[kind] * count)
    plain_rnn = kind == "RNN" and given == ["Relu"] * count
    if given != _ACTIVATIONS[kind] * count and not plain_rnn:
        raise NotImportedError(f"its activations are {', '.join(given)}")
    if node.get("clip", None) is not None or node.get("input_forget", 0):
        raise NotImportedError("it has a clip, or couples the input and forget gates")
    if kind == "GRU" and not node.get("linear_before_reset", 0):
        raise NotImportedError("linear_before_reset is 0, torch's GRU has it 1")
    y = tensor_of(x)
    y = y.transpose(0, 1) if node.get("layout", 0) else y
    size = node.get("hidden_size", tensor_of(states).shape[-1])
    parameters = _parameters(kind, tensor_of(weight), tensor_of(states), bias, size)
    if direction == "reverse":
        y = y.flip(0)
    begins = [_begin(value, count, y.shape[1], size) for value in (hidden, cell)]
    settings = (True, 1, 0.0, False, count == 2, False)
    last: tuple[Tensor, ...]
    if kind == "LSTM":
        found, *last_states = torch.lstm(y, tuple(begins), parameters, *settings)
        last = tuple(last_states)
    else:
        function = torch.gru if kind == "GRU" else torch.rnn_relu if plain_rnn else torch.rnn_tanh
        found, only = function(y, begins[0], parameters, *settings)
        last = (only,)
    if direction == "reverse":
        found = found.flip(0)
    steps = found.unflatten(2, (count, size)).transpose(1, 2)
    if node.get("layout", 0):
        return steps.permute(2, 0, 1, 3), *(state.transpose(0, 1) for state in last)
    return steps, *last


def _parameters(
    kind: str, weight: Tensor, states: Tensor, bias: Value | None, size: int
) -> list[Tensor]:
    """Return torch's weights and biases, direction by direction."""
    order = _GATES[kind]
    found = []
    for place in range(weight.shape[0]):

        def gates(x: Tensor) -> Tensor:
            parts = x.split(size)
            return torch.cat([parts[g] for g in order])

        biases = torch.zeros(2 * len(order) * size) if bias is None else tensor_of(bias)[place]
        inside, outside = biases.split(len(order) * size)
        found += [gates(weight[place]), gates(states[place]), gates(inside), gates(outside)]
    return found


def _begin(value: Value | None, count: int, batch: Any, size: int) -> Tensor:
    if value is None:
        return torch.zeros(count, batch, size)
    state = tensor_of(value)
    return state.expand(count, batch, size) if state.shape[1] == 1 else state


OPERATORS: dict[str, Function] = {
    "Conv": _convolution, "ConvTranspose": _transposed, "MatMul": _matmul, "Gemm": _gemm,
    "Einsum": _einsum, "LSTM": _recurrent, "GRU": _recurrent, "RNN": _recurrent,
    "com.microsoft.FusedConv": _fused_convolution, "com.microsoft.FusedMatMul": _fused_matmul,
    "com.microsoft.FusedGemm": lambda node, *x: _activated(node, _gemm(node, *x)),
}  # fmt: skip
