"""Divisions: whole groups, shares of every class, the same on every machine."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.sources.division import CALIBRATION, divide

MAIN = ("train", "selection", "test")


@given(st.lists(st.integers(0, 30), min_size=60, max_size=200))
@settings(max_examples=50)
def test_every_sample_is_in_one_split_and_so_is_every_group(groups):
    assume(len(set(groups)) >= 4)
    parts = divide(groups)
    rows = np.concatenate([parts[s] for s in MAIN if s in parts])
    assert sorted(rows) == list(range(len(groups)))
    of_group = [{s for s in MAIN if s in parts for r in parts[s] if groups[r] == g} for g in groups]
    assert all(len(splits) == 1 for splits in of_group)
    assert set(parts["calibration"]) <= set(parts["train"])


def test_shares_of_every_class():
    labels = [i % 3 for i in range(900)]
    parts = divide(range(900), labels)
    assert Counter(labels[r] for r in parts["test"]) == {0: 60, 1: 60, 2: 60}
    assert Counter(labels[r] for r in parts["selection"]) == {0: 30, 1: 30, 2: 30}
    assert len(parts["calibration"]) == CALIBRATION


def test_the_order_of_the_files_does_not_matter():
    names = [f"picture {i}" for i in range(100)]
    parts, again = divide(names), divide(names[::-1])
    for split in MAIN:
        assert {names[r] for r in parts[split]} == {names[99 - r] for r in again[split]}


def test_the_test_is_a_whole_group_where_groups_are_large():
    parts = divide([0] * 60 + [1] * 50)
    assert sorted(parts["test"]) == list(range(60, 110))


@pytest.mark.parametrize("groups", [[1, 2], [7] * 50, []])
def test_too_few_samples(groups):
    with pytest.raises(BadInputError, match="are too few: at least 10"):
        divide(groups)
