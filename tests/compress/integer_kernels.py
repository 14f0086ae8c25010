"""Integer layers written out in numpy: int32 accumulators, then requantization.

Source: Jacob et al., "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", 2018, section 2.2.
"""

import numpy as np

from edgedl.compress.encodings.affine import Affine

INT32 = np.iinfo(np.int32)


def weight_integers(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 weights and float32 scales of the first axis, from the largest magnitudes."""
    flat = np.abs(weight.reshape(len(weight), -1)).max(1)
    scales = (flat / np.float32(127)).astype(np.float32)
    column = scales.reshape(-1, *[1] * (weight.ndim - 1))
    return np.clip(np.rint(weight / column), -127, 127).astype(np.int64), scales


def convolve(
    x: np.ndarray, w: np.ndarray, stride: int = 1, padding: int = 0, groups: int = 1
) -> np.ndarray:
    """Convolve centred integers [N, C, H, W] with [O, C / groups, K, L]."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride]
    inputs, outputs = w.shape[1], len(w) // groups
    parts = [
        np.einsum(
            "nchwkl,ockl->nohw",
            windows[:, g * inputs : (g + 1) * inputs],
            w[g * outputs : (g + 1) * outputs],
        )
        for g in range(groups)
    ]
    return np.concatenate(parts, 1)


def accumulate(products: np.ndarray, bias: np.ndarray | None, steps: np.ndarray) -> np.ndarray:
    """Add the bias, rounded to the accumulator's step of its channel (axis 1); check int32."""
    total = products
    if bias is not None:
        rounded = np.rint(bias.astype(np.float64) / steps).astype(np.int64)
        total = products + rounded.reshape(1, -1, *[1] * (products.ndim - 2))
    assert INT32.min <= total.min()
    assert total.max() <= INT32.max
    return total


def requantize(total: np.ndarray, steps: np.ndarray, output: Affine) -> np.ndarray:
    """Return the integers of the output grid."""
    factor = (steps / output.scale).reshape(1, -1, *[1] * (total.ndim - 2))
    return np.clip(np.rint(total * factor) + output.zero_point, output.qmin, output.qmax)


def centred(x: np.ndarray, grid: Affine) -> np.ndarray:
    """Quantize real values and subtract the zero point."""
    return grid.quantize(x).astype(np.int64) - grid.zero_point


INT16 = np.iinfo(np.int16)


def pairwise_products(x: np.ndarray, w: np.ndarray) -> int:
    """Sum products of uint8 and int8 as x86 does without VNNI: neighbours in 16 bits first.

    Source: Intel, "Intel 64 and IA-32 architectures software developer's manual", volume 2,
    PMADDUBSW (saturates) and PMADDWD.
    """
    pairs = (x.astype(np.int64) * w).reshape(-1, 2).sum(1)
    return int(np.clip(pairs, INT16.min, INT16.max).sum())
