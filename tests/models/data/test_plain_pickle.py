"""Pickles are read as plain data: arrays come back, everything else is refused."""

import io
import os
import pickle
from contextlib import suppress

import numpy as np
import pytest

from edgedl.models.data.plain_pickle import load_plain_pickle


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments, state=None):
        self.made = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.made


def read(content):
    return load_plain_pickle(io.BytesIO(content))


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("kind", ["u1", "i8", "f4", "f8", "?", ">i2", "<f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back(protocol, kind, order):
    x = np.asarray(np.arange(12).reshape(3, 4), dtype=kind, order=order)
    found = read(pickle.dumps({"x": x, "n": [1, 2.5, "text"], "s": x[1, 2]}, protocol))
    np.testing.assert_array_equal(found["x"], x)
    assert found["x"].shape == (3, 4)
    assert found["x"].dtype == x.dtype
    assert found["n"] == [1, 2.5, "text"]
    assert found["s"] == x[1, 2]


def test_arrays_of_objects_become_lists():
    ragged = np.empty(2, object)
    ragged[0], ragged[1] = np.zeros((2, 3)), np.ones((4, 3))
    found = read(pickle.dumps({"X": ragged}, 2))
    assert [x.shape for x in found["X"]] == [(2, 3), (4, 3)]
    inside = np.array({"a": np.arange(3)}, object)
    np.testing.assert_array_equal(read(pickle.dumps(inside, 2))["a"], np.arange(3))


@pytest.mark.parametrize(
    "content",
    [
        Call(os.system, "true"),
        Call(eval, "1"),
        Call(np.load, "x"),
        np.array(["text"]),
        np.zeros(2, [("a", "f4")]),
        np.zeros(1, "datetime64[s]"),
    ],
    ids=["system", "eval", "load", "text", "record", "date"],
)
def test_everything_else_is_refused(content):
    with pytest.raises(pickle.UnpicklingError, match="no place in a data file"):
        read(pickle.dumps(content, 2))


def test_a_type_whose_state_is_a_pointer_is_refused():
    """numpy's own dtype follows these bytes and crashes the process."""
    from numpy._core.multiarray import _reconstruct

    fields = (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)
    kind = Call(np.dtype, "V8", False, True, state=fields)
    array = Call(_reconstruct, np.ndarray, (0,), b"b", state=(1, (), kind, False, b"A" * 8))
    with pytest.raises(pickle.UnpicklingError, match="V8"):
        read(pickle.dumps(array, 2))


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_damaged_file_raises_and_never_crashes(protocol):
    content = bytearray(pickle.dumps({"x": np.arange(6.0), "y": [1, 2]}, protocol))
    for place in range(len(content)):
        damaged = bytes(content[:place]) + bytes([content[place] ^ 1]) + bytes(content[place + 1 :])
        # Any class at all, but Python goes on.
        with suppress(Exception):
            read(damaged)
    assert read(bytes(content))["y"] == [1, 2]
