"""Windows that are cut from sequences, and their settings."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.preprocess.preprocessing import Preprocessing
from edgedl.runtime.preprocess.sequence import SequencePreprocessing

CUT = SequencePreprocessing(("ax", "ay", "az"), window=4, hop=2, rate_hz=50.0)


def numbered(rows, channels):
    return np.arange(rows * channels, dtype=np.float32).reshape(rows, channels)


def windows_by_loop(rows, window, hop):
    """Cut windows one value at a time."""
    found, start = [], 0
    while start + window <= len(rows):
        found.append([[float(v) for v in rows[start + i]] for i in range(window)])
        start += hop
    return found


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 40),
    channels=st.integers(1, 4),
    window=st.integers(1, 12),
    hop=st.integers(1, 15),
)
def test_windows_against_a_loop(rows, channels, window, hop):
    cut = SequencePreprocessing(tuple("abcd"[:channels]), window, hop, 50.0)
    values = numbered(rows, channels)
    found = cut.windows(values)
    assert found.dtype == np.float32
    if rows < window:
        assert found.tolist() == [values.tolist()]
    else:
        assert found.tolist() == windows_by_loop(values, window, hop)


@pytest.mark.parametrize(
    ("rows", "shape"),
    [(1, (1, 1, 3)), (3, (1, 3, 3)), (4, (1, 4, 3)), (5, (1, 4, 3)), (6, (2, 4, 3))],
)
def test_windows_around_the_first_whole_one(rows, shape):
    assert CUT.windows(numbered(rows, 3)).shape == shape


def test_windows_do_not_change_the_rows():
    values = numbered(9, 3)
    CUT.windows(values)[:] = -1
    np.testing.assert_array_equal(values, numbered(9, 3))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"columns": ()}, "columns"),
        ({"columns": ("ax", "ay", "ax")}, "'ax', 'ay', 'ax'"),
        ({"window": 0}, "above 0"),
        ({"window": -4}, "-4"),
        ({"hop": 0}, "above 0"),
        ({"rate_hz": 0.0}, "above 0"),
        ({"rate_hz": math.nan}, "nan"),
    ],
)
def test_settings_that_cannot_be_applied(refused, change, word):
    with refused(BadInputError, word):
        msgspec.structs.replace(CUT, **change)


def test_settings_survive_json():
    raw = msgspec.json.encode(CUT)
    assert msgspec.json.decode(raw, type=Preprocessing) == CUT


@pytest.mark.parametrize("change", [{"window": 0}, {"columns": []}, {"extra": 1}, {"hop": 1.5}])
def test_bad_settings_in_json(change):
    content = {**msgspec.json.decode(msgspec.json.encode(CUT)), **change}
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(content), type=Preprocessing)
