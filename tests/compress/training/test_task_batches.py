"""Training batches of a task: every sample with its own label and its own answer."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedl.compress.training.task_batches import READ_BATCH, TaskBatches, samples_set_aside
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.task import ArrayTask, Samples


def rows_task(count: int, splits: tuple[str, ...] = ("train",)) -> ArrayTask:
    """Return a task whose inputs say the number of their sample, as do the labels."""
    rows = np.arange(count, dtype=np.float32)
    samples = Samples((np.stack([rows, rows], 1), -rows[:, None]), np.arange(count))
    return ArrayTask("rows", {split: lambda: samples for split in splits})


def epoch(batches: TaskBatches, seed: int = 0) -> list:
    return list(batches.epoch(torch.Generator().manual_seed(seed)))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3 * READ_BATCH), st.integers(1, 700), st.integers(1, 90))
def test_samples_are_distinct_and_have_their_labels(count: int, samples: int, size: int) -> None:
    batches = TaskBatches(rows_task(count), "train", samples, size)
    found = epoch(batches)
    aside = samples_set_aside(count)
    taken = min(samples, count - len(aside))
    size = min(size, taken)
    assert len(found) == len(batches) == taken // size
    labels = torch.cat([targets.labels for _, targets in found])
    assert not set(labels.tolist()) & set(aside.tolist())
    assert len(labels.unique()) == len(labels) == size * (taken // size)
    for (first, second), targets in found:
        assert torch.equal(first, torch.stack([targets.labels.float()] * 2, 1))
        assert torch.equal(second[:, 0], -targets.labels.float())
        assert targets.teacher == ()


def test_the_whole_split_is_drawn_from_and_the_order_is_the_generators() -> None:
    batches = TaskBatches(rows_task(600), "train", 60, 20)
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.cat([t.labels for _, t in batches.epoch(generator)]) for _ in range(40)]
    assert len(torch.cat(drawn).unique()) > 0.93 * (600 - batches.set_aside)
    again = torch.cat([t.labels for _, t in epoch(batches)])
    assert torch.equal(again, drawn[0])
    assert not torch.equal(again, again.sort().values)


def test_samples_that_are_set_aside_are_spread_and_come_as_they_are() -> None:
    batches = TaskBatches(rows_task(600), "train", 60, 20, lambda x, y: 2 * x)
    found = list(batches.those_set_aside())
    labels = torch.cat([targets.labels for _, targets in found])
    assert labels.tolist() == list(range(0, 600, 10))
    assert batches.set_aside == 60
    for (x, _), targets in found:
        assert torch.equal(targets.teacher[0], 2 * x)
    assert TaskBatches(rows_task(159), "train", 60, 20).set_aside == 0


def test_the_teacher_answers_for_the_batch_it_stands_beside() -> None:
    def teacher(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert not torch.is_grad_enabled()
        return 2 * x, y + 1

    for _, targets in epoch(TaskBatches(rows_task(50), "train", 50, 8, teacher)):
        first, second = targets.teacher
        assert torch.equal(first[:, 0], 2 * targets.labels.float())
        assert torch.equal(second[:, 0], 1 - targets.labels.float())


def test_a_split_that_is_missing_or_empty_is_refused() -> None:
    with pytest.raises(BadInputError, match="no split 'train'"):
        TaskBatches(rows_task(5, ("calibration",)), "train", 5, 5)

    class Empty:
        name = "empty"

        def batches(self, split: str, batch_size: int) -> object:
            return iter(())

    with pytest.raises(BadInputError, match="'calibration' of task 'empty' has no samples"):
        TaskBatches(Empty(), "calibration", 5, 5)


@pytest.mark.parametrize(
    ("augment", "found"),
    [
        (lambda x, generator: x.numpy(), "ndarray"),
        (lambda x, generator: x.double(), "torch.float64"),
        (lambda x, generator: x[:, :1], r"\[4, 1\]"),
    ],
)
def test_an_augment_that_changes_the_kind_of_input_is_refused(augment, found: str) -> None:
    with pytest.raises(BadInputError, match=f"augment made .*{found}.* the same shape and dtype"):
        epoch(TaskBatches(rows_task(8), "train", 8, 4, augment=augment))


def test_views_are_few_and_do_not_depend_on_what_else_is_drawn() -> None:
    def augment(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.stack([x[:, 0], torch.rand(len(x), generator=generator)], 1)

    seen: dict[int, set[float]] = {}
    generator = torch.Generator().manual_seed(3)
    for samples, size in [(600, 50)] * 12 + [(40, 7)] * 12:
        batches = TaskBatches(rows_task(600), "train", samples, size, augment=augment, views=3)
        for (first, second), targets in batches.epoch(generator):
            assert torch.equal(second[:, 0], -targets.labels.float())
            for number, row in zip(targets.labels.tolist(), first, strict=True):
                assert int(row[0]) == number
                seen.setdefault(number, set()).add(float(row[1]))
    assert {len(values) for values in seen.values()} == {3}


@pytest.mark.parametrize("views", [None, 2])
def test_an_augment_that_works_in_place_leaves_the_task_s_data(views: int | None) -> None:
    def augment(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return x.add_(1.0)

    stored = Samples((np.zeros((20, 2), np.float32),), np.arange(20))
    task = ArrayTask("stored", {"train": lambda: stored})
    for _ in range(2):
        for (first,), _targets in epoch(TaskBatches(task, "train", 20, 5, None, augment, views)):
            assert (first == 1).all()
    assert not stored.inputs[0].any()


def test_labels_that_are_no_numbers_are_refused() -> None:
    samples = Samples((np.zeros((4, 2), np.float32),), np.array(["cat", "dog", "cat", "dog"]))
    with pytest.raises(BadInputError, match=r"labels of the split .* takes numbers"):
        epoch(TaskBatches(ArrayTask("pets", {"train": lambda: samples}), "train", 4, 2))
