"""Quantize and dequantize in place: torch's own take a new tensor for each of their steps.

The values are the same. An emitted graph of convolutions spends up to a third of its time here.
"""

from functools import cache

import torch
from torch import Tensor

_INTEGERS = (torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32)


@cache
def compute_pairs_faster() -> torch.library.Library:
    """Give torch other kernels for processors, once in a process; returned is what holds them."""
    library = torch.library.Library("quantized_decomposed", "IMPL")
    library.impl("quantize_per_tensor", _quantize, "CPU")
    library.impl("dequantize_per_tensor", _dequantize, "CPU")
    return library


def _quantize(
    x: Tensor, scale: float, zero_point: int, quant_min: int, quant_max: int, dtype: torch.dtype
) -> Tensor:
    _check(dtype)
    # Bounded before the zero point is added, which is exact either way.
    scaled = torch.mul(x.float(), 1.0 / scale).round_()
    return scaled.clamp_(quant_min - zero_point, quant_max - zero_point).add_(zero_point).to(dtype)


def _dequantize(
    x: Tensor,
    scale: float,
    zero_point: int,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
    *,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    _check(dtype)
    wide = x.to(torch.float32 if out_dtype is None else out_dtype)
    return (wide.sub_(zero_point) if zero_point else wide).mul_(scale)


def _check(dtype: torch.dtype) -> None:
    if dtype not in _INTEGERS:
        raise ValueError(f"there are no pairs of {dtype}")
