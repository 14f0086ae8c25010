"""What a network is for: its data splits, and how its outputs are scored. numpy only."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.preprocess.preprocessing import Preprocessing
from edgedl.runtime.task.checks import (
    TOP1,
    Scores,
    cast_note,
    check_labels,
    checked_samples,
    checked_scores,
    narrowed,
)
from edgedl.runtime.task.kept_splits import Array, KeptSplits, Samples
from edgedl.runtime.task.scores import top1
from edgedl.runtime.wording import meant

__all__ = [
    "TRAIN",
    "UNKNOWN",
    "Array",
    "ArrayTask",
    "AskedTask",
    "Batch",
    "Samples",
    "Scores",
    "Task",
    "WrappedTask",
    "training_split",
    "why_not_train",
    "with_splits",
]

TRAIN = "train"
# A name that no task has a split of.
UNKNOWN = "no such split"


class Batch(NamedTuple):
    """Network inputs, each [B, ...], and the labels [B, ...] that belong to them."""

    inputs: tuple[Array, ...]
    labels: Array


class Task(Protocol):
    """A data set with a metric; the same object serves host and device.

    Attributes:
        name: what the manifest calls it.
        metric: name of the score, for example "top1".
        classes: class names in label order; empty when the task is not a classification.
        preprocessing: how a picture or a file of sensor rows becomes the input; None when inputs
            are plain arrays.
        splits: names of all splits: "calibration", "test", and what else there is. Stages that
            train take "train" where it is named. ``with_splits`` makes do without the attribute.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def metric(self) -> str: ...  # noqa: D102
    @property
    def classes(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def preprocessing(self) -> Preprocessing | None: ...  # noqa: D102
    @property
    def splits(self) -> Collection[str]: ...  # noqa: D102

    def batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """Yield a split in order, already preprocessed; every task has "calibration" and "test"."""
        ...

    def score(self, outputs: Sequence[Array], labels: Array) -> Scores:
        """Score each sample: float64 [B], larger is better; the metric is the mean."""
        ...


class WrappedTask:
    """A task that hands on what another one says; a subclass says some of it otherwise."""

    def __init__(self, task: Task) -> None:
        """Take the other task."""
        self._task = task

    @property
    def name(self) -> str:
        """Return the task's name."""
        return self._task.name

    @property
    def metric(self) -> str:
        """Return the name of the score."""
        return self._task.metric

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names."""
        return tuple(self._task.classes)

    @property
    def preprocessing(self) -> Preprocessing | None:
        """Return how a file becomes an input."""
        return self._task.preprocessing

    @property
    def splits(self) -> Collection[str]:
        """Return the names of the splits."""
        return self._task.splits

    @property
    def lacks_train(self) -> str:
        """Return why a task that does not name its splits has no "train"; empty for any other."""
        return str(getattr(self._task, "lacks_train", ""))

    def batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """Yield a split in order."""
        return self._task.batches(split, batch_size)

    def score(self, outputs: Sequence[Array], labels: Array) -> Scores:
        """Score each sample of a batch."""
        return self._task.score(outputs, labels)


class AskedTask(WrappedTask):
    """A task that does not name its splits: it is asked for "train", once, when that matters."""

    @cached_property
    def splits(self) -> Collection[str]:
        """Return "calibration", "test", and "train" where the task has that."""
        return ("calibration", "test") if self.lacks_train else ("calibration", "test", "train")

    @cached_property
    def lacks_train(self) -> str:
        """Return why the task has no split "train"; empty where it has one."""
        found = self._first(TRAIN)
        if found:
            return found
        # A task that takes every unknown name for one that it knows may give its test samples.
        if not self._first(UNKNOWN):
            return f"it takes any name for a split, also '{UNKNOWN}'"
        return ""

    def _first(self, split: str) -> str:
        """Read one sample; return what came of it where that is no sample."""
        try:
            batch = next(iter(self._task.batches(split, 1)), None)
            empty = batch is None or len(batch.labels) == 0
        except Exception as error:
            # The user's own code says in its own way that there is no such split.
            return f"asked for '{split}', it raised {type(error).__name__}: {error}"
        return f"it has no samples for '{split}'" if empty else ""


def with_splits(task: Task) -> Task:
    """Return the task itself where it has the attribute ``splits``, else one that has it."""
    return task if hasattr(task, "splits") else AskedTask(task)


def training_split(task: Task) -> str:
    """Return the split that stages train on: "train" where the task has it, else "calibration".

    >>> training_split(ArrayTask("mine", {"calibration": lambda: Samples((), np.zeros(0))}))
    'calibration'
    """
    return TRAIN if TRAIN in with_splits(task).splits else "calibration"


def why_not_train(task: Task) -> str:
    """Say why stages cannot train on a split "train" of this task."""
    lacks = getattr(task, "lacks_train", "")
    if lacks:
        return f"task '{task.name}' has no attribute 'splits', and {lacks}"
    return f"task '{task.name}' names no split '{TRAIN}'"


@dataclass(frozen=True)
class ArrayTask:
    """A task over arrays in memory; the usual way to describe one's own data.

    The function of a split is called once in a process, and what it returns is kept if all kept
    splits take at most a quarter of the free memory; that of a larger one is called every time.

    Attributes:
        name: what the manifest calls it.
        splits: how to load "calibration" (never seen by the score) and "test", and "train" if
            there is more to train on than "calibration".
        metric: name of the score.
        score_samples: maps (outputs, labels) to one score per sample.
        classes: class names in label order, if any.
        preprocessing: for pictures, applied to the first input when that is uint8; arrays of
            another type are taken as preprocessed.
    """

    name: str
    splits: Mapping[str, Callable[[], Samples]]
    metric: str = "top1"
    score_samples: Callable[[Sequence[Array], Array], Scores] = top1
    classes: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    _kept: KeptSplits = field(default_factory=KeptSplits, init=False, repr=False, compare=False)
    _cast: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse a split that is no function.

        Raises:
            BadInputError: one is; it is named.
        """
        for split, read in self.splits.items():
            if not callable(read):
                raise BadInputError(
                    f"split '{split}' of task '{self.name}' is a {type(read).__name__}: it must be "
                    "a function that returns Samples, such as lambda: Samples((x,), labels)"
                )

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what was done with the data that the user may not expect."""
        return (cast_note(self.name),) if self._cast else ()

    def batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """Yield the split in order, in batches of ``batch_size`` (the last may be smaller).

        The arrays are the caller's own: writing into them changes no later batch.

        Raises:
            BadInputError: unknown split; inputs and labels of different lengths; a label that is no
                class.
        """
        if batch_size < 1:
            raise BadInputError(f"batch_size must be at least 1, got {batch_size}")
        if split not in self.splits:
            raise BadInputError(
                f"task '{self.name}' has no split '{split}'{meant(split, self.splits)}"
            )
        samples = self._kept.get(split, lambda: self._read(split))
        for start in range(0, len(samples.labels), batch_size):
            part = slice(start, start + batch_size)
            inputs = tuple(x[part] for x in samples.inputs)
            if self.preprocessing is not None:
                inputs = (self.preprocessing.from_raw(inputs[0]), *inputs[1:])
            yield Batch(tuple(np.array(x) for x in inputs), np.array(samples.labels[part]))

    def _read(self, split: str) -> Samples:
        where = f"split '{split}' of task '{self.name}'"
        samples = checked_samples(where, self.splits[split]())
        if len(samples.labels) == 0:
            raise BadInputError(f"{where}: 0 labels, so it has no samples")
        if self.metric == TOP1 and self.classes:
            count = len(self.classes)
            check_labels(where, samples.labels, count, f"and the task has {count} classes")
        narrow = narrowed(samples)
        if narrow is not samples:
            self._cast.add(split)
        return narrow

    def score(self, outputs: Sequence[Array], labels: Array) -> Scores:
        """Score each sample of a batch.

        Raises:
            BadInputError: the score function did not return one finite number per sample.
        """
        return checked_scores(self.name, self.score_samples(outputs, labels), len(labels))
