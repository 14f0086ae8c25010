"""Between the network's float32 values and what a file takes and gives."""

import numpy as np
import numpy.typing as npt

from edgedl.runtime.backend import Array
from edgedl.runtime.bundle.layout import to_file, to_network
from edgedl.runtime.bundle.manifest import TensorSpec
from edgedl.runtime.errors import BadInputError

Floats = npt.NDArray[np.float32]


def check_input(x: Array, spec: TensorSpec) -> Array:
    """Return an input as an array.

    Raises:
        BadInputError: wrong shape or type, no samples, or values that are not finite.
    """
    # A torch tensor is taken, too.
    x = np.asarray(x)
    shape = ", ".join("N" if d is None else str(d) for d in spec.shape)
    fits = x.ndim == len(spec.shape) and all(
        want in (None, have) for want, have in zip(spec.shape, x.shape, strict=True)
    )
    if not fits or 0 in x.shape:
        raise BadInputError(f"input '{spec.name}' must be [{shape}], got {list(x.shape)}")
    if x.dtype != np.dtype(spec.dtype):
        raise BadInputError(f"input '{spec.name}' must be {spec.dtype}, got {x.dtype}")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise BadInputError(f"input '{spec.name}' has values that are not finite (NaN or inf)")
    return x


def unusual(x: Array, spec: TensorSpec) -> str:
    """Return what is unusual about the values of an input; empty for nothing.

    It is where some lie farther from those that the network was calibrated on than those lie from
    each other, as pictures do that were not preprocessed.

    >>> unusual(np.array([0.0, 9.0]), TensorSpec("x", (2,), "float32", low=-2.0, high=2.0))
    "input 'x' has values of 0 to 9, the network was calibrated on -2 to 2: is it preprocessed?"
    """
    if spec.low is None or spec.high is None:
        return ""
    least, largest = float(x.min()), float(x.max())
    margin = spec.high - spec.low
    if spec.low - margin <= least and largest <= spec.high + margin:
        return ""
    return (
        f"input '{spec.name}' has values of {least:.4g} to {largest:.4g}, the network was "
        f"calibrated on {spec.low:.4g} to {spec.high:.4g}: is it preprocessed?"
    )


def encode(x: Array, spec: TensorSpec) -> Array:
    """Turn float32 values into what the file takes.

    They are normalised where the file is to be fed so, in its layout, and quantized where it takes
    integers.

    >>> encode(np.array([0.0, 0.5], np.float32), TensorSpec("x", (2,), "int8", 0.5, -1)).tolist()
    [-1, 0]
    """
    if spec.mean:
        x = _normalised(x, spec)
    if spec.layout is not None:
        x = to_file(x, spec.layout)
    if spec.scale is None or spec.zero_point is None:
        return np.ascontiguousarray(x, spec.dtype)
    dtype = np.dtype(spec.dtype)
    limits = np.iinfo(dtype)
    steps = np.rint(np.asarray(x, np.float32) / np.float32(spec.scale)) + spec.zero_point
    return np.ascontiguousarray(np.clip(steps, limits.min, limits.max), dtype)


def decode(y: Array, spec: TensorSpec) -> Floats:
    """Turn a file's output into float32 values in the network's layout.

    >>> decode(np.array([3], np.int8), TensorSpec("y", (1,), "int8", 0.5, 1)).tolist()
    [1.0]
    """
    if spec.layout is not None:
        y = to_network(y, spec.layout)
    if spec.scale is None or spec.zero_point is None:
        return y.astype(np.float32, copy=False)
    return (y.astype(np.float32) - np.float32(spec.zero_point)) * np.float32(spec.scale)


def _normalised(x: Array, spec: TensorSpec) -> Floats:
    """Return float32 values [N, C, ...] minus the mean of each channel, over its deviation."""
    by_channel = (-1, *[1] * (x.ndim - 2))
    mean, std = (np.asarray(v, np.float32).reshape(by_channel) for v in (spec.mean, spec.std))
    return (np.asarray(x, np.float32) - mean) / std
