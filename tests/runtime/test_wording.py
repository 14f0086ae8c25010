"""Numbers keep what they say when they are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedl.runtime.wording import counted, points


@given(st.floats(-100, 100))
def test_points_that_are_not_0_do_not_look_like_it(value: float) -> None:
    text = points(value)
    assert text[0] in "+-"
    assert (float(text) == 0) == (value == 0)
    assert float(text) == pytest.approx(value, rel=0.05, abs=0.005)


def test_one_is_not_many() -> None:
    assert [counted(n, "sample") for n in (0, 1, 2)] == ["0 samples", "1 sample", "2 samples"]
    assert counted(1.0, "point") == "1 point"
