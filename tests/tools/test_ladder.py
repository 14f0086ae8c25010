"""What a rung of the ladder is worth, and which samples choose."""

import numpy as np
import pytest
from tiny import make_task

from edgedl.compress.selection import SHARE, divide
from edgedl.runtime.statistics import Estimate
from edgedl.runtime.task import ArrayTask, Samples
from edgedl.tools.drop import drop_record
from edgedl.tools.ladder import AS_FAST_AS, RUNGS, _Tried

FASTER, SLOWER = Estimate(0.5, 0.45, 0.55), Estimate(1.5, 1.4, 1.6)


def tried(lost: int, ratio: Estimate, budget: float = 1.0) -> _Tried:
    baseline = np.ones(1000)
    candidate = np.r_[np.zeros(lost), np.ones(1000 - lost)]
    return _Tried("file", drop_record(baseline, candidate, budget), ratio)


def test_only_what_is_faster_and_within_the_budget_is_taken() -> None:
    assert tried(0, FASTER).outcome == "taken"
    assert tried(0, SLOWER).outcome.startswith("within budget, but not faster")
    assert tried(100, FASTER).outcome == "over budget"
    assert "more samples needed" in tried(8, FASTER).outcome


def test_the_best_file_is_taken_then_faster_then_nearest_to_the_budget() -> None:
    files = [tried(100, SLOWER), tried(100, FASTER), tried(30, FASTER), tried(0, FASTER)]
    assert sorted(files, key=lambda t: t.rank) == files[::-1]


def test_without_intervals_the_least_loss_comes_closest() -> None:
    losses = (0.3, 0.2, 0.1)
    files = [
        _Tried("file", drop_record(np.full(4, 0.9), np.full(4, 0.9 - lost), 1.0), FASTER)
        for lost in losses
    ]
    assert [file.outcome for file in files] == ["inconclusive, 16 more samples needed"] * 3
    assert sorted(files, key=lambda t: t.rank) == files[::-1]


def test_recipes_as_fast_as_others_come_after_them() -> None:
    names = [name for name, _ in RUNGS]
    assert all(names.index(a) > names.index(b) for a, b in AS_FAST_AS.items())


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_the_parts_of_a_test_split_are_the_whole_without_overlap(batch_size: int) -> None:
    task = ArrayTask(
        "numbers", {"test": lambda: Samples((np.arange(50.0),), np.arange(50)), "calibration": list}
    )
    parts = [
        np.concatenate([b.labels for b in part.batches("test", batch_size)])
        for part in divide(task)
    ]
    assert sorted(np.concatenate(parts)) == list(range(50))
    assert list(parts[0]) == list(range(0, 50, SHARE))


def test_a_split_named_selection_chooses_and_the_test_split_stays_whole() -> None:
    whole = make_task()
    own = ArrayTask(
        whole.name,
        {**whole.splits, "selection": lambda: Samples((np.zeros((3, 2)),), np.arange(3))},
    )
    chooses, final = divide(own)
    assert [b.labels.tolist() for b in chooses.batches("test", 5)] == [[0, 1, 2]]
    assert final is own
    assert chooses.metric == own.metric
