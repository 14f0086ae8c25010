"""Multiply-accumulates of TFLite operators, from the shapes of what they read and write."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Products:
    """What an operator reads and writes.

    Attributes:
        output: shape of what it writes first.
        read: shapes of its inputs; () for an optional one that is not there.
        constant: which of the inputs are stored in the file.
        options: its settings, by the names of the format's schema; None where it has none.
    """

    output: Shape
    read: Sequence[Shape]
    constant: Sequence[bool]
    options: Any


def count_macs(kind: str, products: Products) -> int | None:
    """Return the multiply-accumulates of an operator.

    Args:
        kind: its name in the format's schema, or that of a custom operator.
        products: what it reads and writes.

    Returns:
        0 if it has no products, None if they are unknown.
    """
    if kind in _UNCOUNTED:
        return None
    count = _COUNTS.get(kind)
    return count(products) if count is not None else 0


def _convolution(products: Products) -> int:
    """Weights are [C_out, ..., C_in / groups]."""
    return math.prod(products.output) * math.prod(products.read[1][1:])


def _depthwise(products: Products) -> int:
    """Weights are [1, H, W, C_out]."""
    return math.prod(products.output) * math.prod(products.read[1][1:3])


def _convolution_3d(products: Products) -> int:
    """Weights are [D, H, W, C_in, C_out]."""
    return math.prod(products.output) * math.prod(products.read[1][:4])


def _transposed_convolution(products: Products) -> int:
    """Weights are [C_out, H, W, C_in], of volumes [D, H, W, C_out, C_in]."""
    weight, x = products.read[1], products.read[2]
    return math.prod(x) * math.prod(weight[:-1])


def _linear(products: Products) -> int:
    """Weights are [C_out, C_in]."""
    return math.prod(products.output) * products.read[1][-1]


def _product(products: Products) -> int:
    first = products.read[0]
    transposed = getattr(products.options, "adjX", False)
    return math.prod(products.output) * first[-2 if transposed else -1]


def _recurrent(products: Products) -> int:
    """Every step of every sample is multiplied with all stored matrices."""
    pairs = zip(products.read, products.constant, strict=True)
    stored = sum(math.prod(shape) for shape, constant in pairs if constant and len(shape) == 2)
    return math.prod(products.read[0][:-1]) * stored


_COUNTS: dict[str, Callable[[Products], int]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "CONV_3D": _convolution_3d,
    "TRANSPOSE_CONV": _transposed_convolution,
    "CONV_3D_TRANSPOSE": _transposed_convolution,
    "FULLY_CONNECTED": _linear,
    "BATCH_MATMUL": _product,
    "SVDF": _recurrent,
    **dict.fromkeys(("RNN", "LSTM"), _recurrent),
}
_COUNTS |= {
    f"{way}DIRECTIONAL_SEQUENCE_{cell}": _recurrent
    for way in ("UNI", "BI")
    for cell in ("RNN", "LSTM")
}
PRODUCTS = frozenset(_COUNTS)
# They multiply, how often is not counted here.
_UNCOUNTED = ("STABLEHLO_CONVOLUTION", "STABLEHLO_DOT_GENERAL", "STABLEHLO_CUSTOM_CALL", "DELEGATE")
