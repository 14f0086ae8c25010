"""Affine grids of the three targets: zero is exact, errors are bounded, ORT is TFLite plus 128."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedl.compress.encodings.affine import Affine, affine_for
from edgedl.compress.encodings.encodings import Range
from edgedl.compress.targets.named import ORT, TENSORRT, TFLITE
from edgedl.compress.targets.target import TARGETS

ENDS = st.floats(-1e6, 1e6, width=32)
RANGES = st.tuples(ENDS, ENDS).map(lambda ends: Range(min(ends), max(ends)))


@given(RANGES, st.sampled_from(TARGETS))
def test_zero_is_an_integer_of_the_grid(values: Range, target: str) -> None:
    grid = affine_for(values, target)
    assert grid.qmin <= grid.zero_point <= grid.qmax
    assert grid.dequantize(grid.quantize(np.zeros(1, np.float32)))[0] == 0.0


@given(RANGES, st.sampled_from(TARGETS))
def test_scale_is_a_normal_float32(values: Range, target: str) -> None:
    scale = affine_for(values, target).scale
    assert float(np.float32(scale)) == scale
    assert scale >= np.finfo(np.float32).tiny


@given(RANGES, st.sampled_from(TARGETS), st.integers(0, 2**32 - 1))
def test_error_inside_the_range_is_at_most_a_step(values: Range, target: str, seed: int) -> None:
    grid = affine_for(values, target)
    x = np.random.default_rng(seed).uniform(values.lo, values.hi, 100).astype(np.float32)
    error = np.abs(grid.dequantize(grid.quantize(x)).astype(np.float64) - x)
    # Half a step of rounding, and half a step where the zero point had to be rounded.
    assert error.max() <= grid.scale * 1.001


@given(RANGES)
def test_onnx_runtime_and_tflite_have_the_same_grid(values: Range) -> None:
    ort, tflite = affine_for(values, ORT), affine_for(values, TFLITE)
    assert (ort.dtype, ort.qmin, ort.qmax) == ("uint8", 0, 255)
    assert (tflite.dtype, tflite.qmin, tflite.qmax) == ("int8", -128, 127)
    assert ort.scale == tflite.scale
    assert ort.zero_point == tflite.zero_point + 128


@given(RANGES)
def test_tensorrt_is_symmetric_and_covers_the_larger_end(values: Range) -> None:
    grid = affine_for(values, TENSORRT)
    largest = max(abs(values.lo), abs(values.hi))
    assert grid.zero_point == 0
    assert grid.dtype == "int8"
    assert 127 * grid.scale >= largest * (1 - 1e-6)


@pytest.mark.parametrize("target", TARGETS)
def test_every_integer_survives_the_round_trip(target: str) -> None:
    grid = affine_for(Range(-1.3, 2.9), target)
    integers = np.arange(grid.qmin, grid.qmax + 1)
    assert (grid.quantize(grid.dequantize(integers)) == integers).all()


def test_quantize_saturates_and_rounds_ties_to_even() -> None:
    grid = Affine(0.5, 3, -128, 127, "int8")
    x = np.array([-1e9, -0.75, -0.25, 0.25, 0.75, 1e9], np.float32)
    assert grid.quantize(x).tolist() == [-128, 1, 3, 3, 5, 127]
    assert grid.quantize(x).dtype == np.int8


@pytest.mark.parametrize(
    ("values", "scale", "zero_point"),
    [
        (Range(0.0, 25.5), 0.1, 0),
        (Range(-25.5, 0.0), 0.1, 255),
        (Range(-12.8, 12.7), 0.1, 128),
        (Range(5.0, 25.5), 0.1, 0),
        (Range(-25.5, -5.0), 0.1, 255),
    ],
)
def test_known_grids(values: Range, scale: float, zero_point: int) -> None:
    grid = affine_for(values, ORT)
    assert grid.scale == pytest.approx(scale, rel=1e-6)
    assert grid.zero_point == zero_point


@pytest.mark.parametrize("target", TARGETS)
def test_a_tensor_of_zeros_has_a_grid(target: str) -> None:
    grid = affine_for(Range(0.0, 0.0), target)
    assert grid.scale > 0
    assert (grid.dequantize(grid.quantize(np.zeros(3, np.float32))) == 0).all()
