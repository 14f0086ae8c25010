"""The arithmetic of affine quantization: real = scale * (integer - zero_point).

Source: Jacob et al., "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", 2018, section 2.1.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgedl.compress.encodings.encodings import Encodings, Range
from edgedl.compress.targets.target import Target

# A narrower tensor than this is a constant zero; its step must still be a normal float32.
SMALLEST_WIDTH = 1e-8
SMALLEST_SCALE = float(np.float32(SMALLEST_WIDTH / 255))


@dataclass(frozen=True)
class Affine:
    """Integers of one tensor: step, zero point, and the integers in use.

    Attributes:
        scale: step size, a float32 value.
        zero_point: integer that stands for 0.0.
        qmin: smallest integer. qmax: largest integer.
        dtype: "int8", "uint8" or "int16".
    """

    scale: float
    zero_point: int
    qmin: int
    qmax: int
    dtype: Literal["int8", "uint8", "int16"]

    def quantize(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.integer]:
        """Round to the nearest integer, ties to even, and saturate."""
        q = np.rint(x / np.float32(self.scale)) + self.zero_point
        integers: npt.NDArray[np.integer] = np.clip(q, self.qmin, self.qmax).astype(self.dtype)
        return integers

    def dequantize(self, q: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Return the real values of integers, float32."""
        return (q.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)


def affine_for(values: Range, target: Target, bits: int = 8) -> Affine:
    """Derive a target's integers from the range of a tensor.

    uint8 (ONNX Runtime) and int8 (TFLite) are the same grid shifted by 128, unless the target
    takes only symmetric int8 (TensorRT: zero point 0). Integers of 16 bits are symmetric wherever
    they are used.

    Source: TFLite 8-bit quantization specification and its "16x8" extension, for 16 bits.

    >>> from edgedl.compress.targets.target import load_target
    >>> affine_for(Range(0.0, 2.55), load_target("ort")).zero_point
    0
    >>> affine_for(Range(-1.0, 1.27), load_target("tensorrt")).zero_point
    0
    >>> affine_for(Range(-1.0, 1.27), load_target("tflite"), 16).dtype
    'int16'
    """
    lo, hi = min(values.lo, 0.0), max(values.hi, 0.0)
    largest = max(-lo, hi, SMALLEST_WIDTH)
    if bits == 16:
        return Affine(_float32(largest / 32767), 0, -32768, 32767, "int16")
    if target.symmetric:
        return Affine(_float32(largest / 127), 0, -128, 127, "int8")
    scale = _float32(max(hi - lo, SMALLEST_WIDTH) / 255)
    zero_point = int(min(127, max(-128, round(-lo / scale) - 128)))
    if target.activations == "uint8":
        return Affine(scale, zero_point + 128, 0, 255, "uint8")
    return Affine(scale, zero_point, -128, 127, "int8")


def grid_of(encodings: Encodings, name: str, target: Target) -> Affine:
    """Return the integers that a target gives a tensor of a table."""
    return affine_for(encodings.activations[name], target, encodings.activation_bits)


def range_of(scale: float, zero_point: int) -> Range:
    """Return the range whose grid has exactly this step and zero point; undoes ``affine_for``.

    The ends are products of a float32 and an integer below 256: float64 holds them, and their
    difference, without rounding.

    Args:
        scale: a float32 value, at least ``SMALLEST_SCALE``.
        zero_point: the integer of ONNX Runtime's grid that stands for 0.0, 0 to 255.

    >>> from edgedl.compress.targets.target import load_target
    >>> affine_for(range_of(0.125, 7), load_target("tflite")).zero_point
    -121
    """
    return Range((0 - zero_point) * scale, (255 - zero_point) * scale)


def _float32(value: float) -> float:
    return float(np.float32(value))
