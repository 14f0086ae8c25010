"""Data by name as a task, where there is no network that says how it is scored."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.preprocess.preprocessing import Preprocessing
from edgedl.runtime.task.checks import TOP1, Scores, checked_scores
from edgedl.runtime.task.kept_splits import Array
from edgedl.runtime.task.rebatch import rebatched
from edgedl.runtime.task.scores import R2, r2, top1
from edgedl.runtime.task.sources.source import Source
from edgedl.runtime.task.task import Batch
from edgedl.runtime.wording import meant


class SourceTask:
    """A user's data: classes are scored by ``top1``, numbers by ``r2``."""

    def __init__(self, source: Source) -> None:
        """Take data with labels.

        Raises:
            BadInputError: they have none.
        """
        self._source = source
        first = next(iter(source.splits["test"]))
        if first.labels is None:
            raise BadInputError(f"the data '{source.name}' have no labels: nothing can be scored")
        if source.classes or first.labels.dtype.kind in "iu":
            self._metric, self._score = TOP1, top1
        else:
            labels = np.concatenate(
                [b.labels for b in source.splits["test"] if b.labels is not None]
            )
            self._metric = R2
            self._score = partial(r2, variance=float(labels.astype(np.float64).var()))

    @property
    def name(self) -> str:
        """Return the name of the file or folder."""
        return self._source.name

    @property
    def metric(self) -> str:
        """Return the name of the score."""
        return self._metric

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names."""
        return self._source.classes

    @property
    def preprocessing(self) -> Preprocessing | None:
        """Return how a file becomes an input."""
        return self._source.preprocessing

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits."""
        return tuple(self._source.splits)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what was assumed."""
        return self._source.notes

    def batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """Yield a split in order, in batches of ``batch_size`` (the last may be smaller)."""
        if split not in self._source.splits:
            raise BadInputError(
                f"the data '{self.name}' have no split '{split}'{meant(split, self.splits)}"
            )
        yield from rebatched(self._parts(split), batch_size)

    def score(self, outputs: Sequence[Array], labels: Array) -> Scores:
        """Score each sample of a batch."""
        return checked_scores(self.name, self._score(outputs, labels), len(labels))

    def _parts(self, split: str) -> Iterator[Batch]:
        for inputs, labels in self._source.splits[split]:
            if labels is None:
                raise BadInputError(f"the split '{split}' of '{self.name}' has no labels")
            yield Batch(inputs, labels)
