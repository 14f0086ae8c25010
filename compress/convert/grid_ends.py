"""Where a quantized file clips values, and a file on other grids would not.

Quantizers drop a ReLU or Clip whose result they put on a grid that ends where the operator clips.
The operator must stand there again if the grid ends elsewhere, or if a reader has no pair.
"""

import math
from collections.abc import Callable

import onnx

from edgedl.compress.convert.foreign import LAST, Grid
from edgedl.compress.encodings.affine import range_of

# The least and the largest value that a tensor can have; 0 is always between them.
Ends = tuple[float, float]
FREE: Ends = (-math.inf, math.inf)
NOT_NEGATIVE: Ends = (0.0, math.inf)
# People write the ends of a Clip with so many digits.
_WRITTEN_DIGITS = 3
_FLOAT32_ERROR = 3e-7

_ALWAYS: dict[str, Ends] = {
    "Sigmoid": (0.0, 1.0),
    "HardSigmoid": (0.0, 1.0),
    "Softmax": (0.0, 1.0),
    "Tanh": (-1.0, 1.0),
    "Abs": NOT_NEGATIVE,
    "Exp": NOT_NEGATIVE,
    "Sqrt": NOT_NEGATIVE,
    "Softplus": NOT_NEGATIVE,
}
# Operators whose results are among the values of their first input, between them, or 0.
_AMONG = (
    *("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "ReduceMean", "ReduceMax"),
    *("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Expand"),
    *("Slice", "Split", "Gather", "Tile", "DepthToSpace", "SpaceToDepth"),
)


def bounds_of(node: onnx.NodeProto, read: Callable[[str], Ends]) -> Ends:
    """Return between which ends the results of an operator lie; FREE where that is not known.

    Args:
        node: the operator.
        read: the ends of what it reads, by name.
    """
    kind = node.op_type
    if kind in _ALWAYS:
        return _ALWAYS[kind]
    if kind in ("Concat", "Add", "Mul"):
        return _combine(kind, [read(name) for name in node.input])
    if kind in _AMONG or (kind == "Resize" and not _is_cubic(node)):
        return read(node.input[0])
    if kind not in ("Pad", "Relu", "Clip"):
        return FREE
    given = [read(name) if name else FREE for name in node.input[:3]]
    if kind == "Pad":
        return _combine("Concat", [given[0], *(e for e in given[2:] if e != FREE)])
    if kind == "Relu":
        return narrow(given[0], NOT_NEGATIVE)
    lowest, highest = (*given[1:], FREE, FREE)[:2]
    return narrow(given[0], (lowest[0], highest[1]))


def lost_ends(grid: Grid, bounds: Ends, kept: Ends) -> Ends | None:
    """Return between which ends a value must be clipped anew; None for it can stay as it is.

    An end at 0 is always put back: values of one sign are what an activation gives. The other end
    comes with it where nothing else clips there: that is no operator more, and TensorRT fuses a
    Clip into a convolution as it does a ReLU. Such an end may be the 6 of a ReLU6 or only the
    largest value that calibration saw; the file clips there either way.

    A range of both signs is mostly what calibration saw. To clip there would stand between a
    product and the sum that it is fused with, for the sake of outliers, and lead away from the
    float network. So its ends are put back only if its width is a number that people write, as
    the 2 of Clip(-1, 1): of the widths that come from samples one in thousands is.

    Source: "Convolution and Clip Activation" among the fusions of NVIDIA's TensorRT documentation.

    Args:
        grid: on which the file has the value.
        bounds: between which its operator gives it.
        kept: between which all readers get it in the new file; FREE if one has no pair.

    >>> lost_ends(Grid(0.1234, 0), FREE, (-31.7, 31.5))
    (0.0, inf)
    >>> lost_ends(Grid(0.1234, 0), NOT_NEGATIVE, FREE) is None
    True
    >>> lost_ends(Grid(0.1234, 100), FREE, FREE) is None
    True
    """
    source = range_of(grid.scale, grid.zero_point)
    below = max(bounds[0], kept[0]) < source.lo - grid.scale
    above = min(bounds[1], kept[1]) > source.hi + grid.scale
    from_zero = (below and grid.zero_point == 0) or (above and grid.zero_point == LAST)
    if not from_zero and not ((below or above) and _is_written(source.hi - source.lo)):
        return None
    if not above and grid.zero_point == 0:
        return NOT_NEGATIVE
    return source.lo, source.hi


def narrow(first: Ends, second: Ends) -> Ends:
    """Return the ends of what lies between both.

    >>> narrow((-1.0, 6.0), NOT_NEGATIVE)
    (0.0, 6.0)
    """
    return max(first[0], second[0]), min(first[1], second[1])


def _combine(kind: str, given: list[Ends]) -> Ends:
    lows, highs = zip(*given, strict=True)
    if kind == "Add":
        return sum(lows), sum(highs)
    if kind == "Mul":
        (a, b), (c, d) = given
        corners = [_product(x, y) for x in (a, b) for y in (c, d)]
        return min(corners), max(corners)
    return min(lows), max(highs)


def _product(a: float, b: float) -> float:
    # No value is infinite: 0 times an end that is not known is 0, not NaN.
    return a * b if a and b else 0.0


def _is_cubic(node: onnx.NodeProto) -> bool:
    """Say whether a resize can overshoot what it reads."""
    return any(a.name == "mode" and a.s == b"cubic" for a in node.attribute)


def _is_written(width: float) -> bool:
    """Say whether a width is one of few digits, but for the rounding of a float32 scale.

    >>> _is_written(255 * 0.007843137718737125), _is_written(255 * 0.007912345)
    (True, False)
    """
    near = float(f"{width:.{_WRITTEN_DIGITS}g}")
    return math.isclose(width, near, rel_tol=_FLOAT32_ERROR)
