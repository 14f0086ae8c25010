"""A split is read once in a process, as far as there is memory; nobody can change what is kept."""

import numpy as np
import pytest

from edgedl.runtime.task import kept_splits
from edgedl.runtime.task.kept_splits import KeptSplits, Samples, free_bytes
from edgedl.runtime.task.task import ArrayTask


def samples(kilobytes: int) -> Samples:
    return Samples((np.zeros((1, kilobytes * 1000), np.uint8),), np.zeros(1, np.uint8))


def counting_task(calls: list[str]) -> ArrayTask:
    def read(split: str) -> Samples:
        calls.append(split)
        return Samples((np.ones((4, 2), np.float32),), np.zeros(4))

    return ArrayTask("counted", {s: lambda s=s: read(s) for s in ("calibration", "test")})  # type: ignore[misc]


def test_a_split_is_read_once() -> None:
    calls: list[str] = []
    task = counting_task(calls)
    for split in ("test", "calibration", "test", "test"):
        assert sum(len(b.labels) for b in task.batches(split, 3)) == 4
    assert calls == ["test", "calibration"]


def test_writing_into_a_batch_changes_no_later_one() -> None:
    task = counting_task([])
    for _ in range(2):
        batch = next(task.batches("test", 4))
        assert (batch.inputs[0] == 1).all()
        assert (batch.labels == 0).all()
        batch.inputs[0][:], batch.labels[:] = 7, 7


def test_all_kept_splits_take_a_quarter_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, calls = KeptSplits(), list[str]()

    def get(split: str, kilobytes: int) -> None:
        kept.get(split, lambda: calls.append(split) or samples(kilobytes))  # type: ignore[func-returns-value]

    # What is kept is free no more.
    monkeypatch.setattr(kept_splits, "free_bytes", lambda: 100e3)
    get("first", 15)
    monkeypatch.setattr(kept_splits, "free_bytes", lambda: 85e3)
    get("large", 20)
    get("small", 5)
    for split in ("first", "large", "small"):
        get(split, 20 if split == "large" else 5)
    assert calls == ["first", "large", "small", "large"]


def test_the_free_memory_of_this_machine_is_known() -> None:
    assert 2**20 < free_bytes() < 2**50
