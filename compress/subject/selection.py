"""Samples to choose by, apart from those that the final score is of."""

from collections.abc import Iterator

import numpy as np

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.task import Batch, Task, WrappedTask, with_splits

# One test sample in this many chooses, where a task has no split "selection" of its own.
SHARE = 2


class SplitPart(WrappedTask):
    """A task whose test split is a part of another's: every second sample, or the others."""

    def __init__(self, task: Task, chooses: bool) -> None:
        """Take the samples that choose, or those that are left for the final score."""
        super().__init__(task)
        self._chooses = chooses

    def batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """Yield a split in order; of "test" only this part, in smaller batches."""
        if split != "test":
            yield from self._task.batches(split, batch_size)
            return
        seen = 0
        for batch in self._task.batches(split, batch_size):
            numbers = np.arange(seen, seen + len(batch.labels))
            seen += len(batch.labels)
            taken = (numbers % SHARE == 0) == self._chooses
            if taken.any():
                yield Batch(tuple(x[taken] for x in batch.inputs), batch.labels[taken])


class _SelectionSplit(WrappedTask):
    """A task whose test split is another's split "selection"."""

    def batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """Yield a split in order; "test" is the other's "selection"."""
        return self._task.batches("selection" if split == "test" else split, batch_size)


def divide(task: Task) -> tuple[Task, Task]:
    """Return the task to choose by and the task for the final score; they share no test sample.

    A task that names a split "selection" in its ``splits`` chooses by that one, and keeps its
    whole test split for the final score.

    Raises:
        BadInputError: there are too few test samples for both.
    """
    task = with_splits(task)
    if "selection" in task.splits:
        return _SelectionSplit(task), task
    if next((b for b in SplitPart(task, chooses=False).batches("test", SHARE)), None) is None:
        raise BadInputError(
            f"the test split of task '{task.name}' has too few samples for a budget: at least 2 "
            "are needed, some that choose and others for the final score; or give the task a split "
            "'selection' to choose by"
        )
    return SplitPart(task, chooses=True), SplitPart(task, chooses=False)
