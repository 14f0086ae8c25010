"""Training batches drawn from a task, with what a teacher says about them."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from edgedl.compress.subject.outputs import as_tuple
from edgedl.compress.subject.subject import Augment
from edgedl.runtime.backend import Array
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.task import Task, training_split

READ_BATCH = 250
# Samples that no epoch draws, at most, and the share of a split that they may be. They tell which
# state of a network is the best; a few dozen more would not.
SET_ASIDE, SET_ASIDE_SHARE = 1000, 0.1
# Fewer tell nothing.
LEAST_SET_ASIDE = 16

Teacher = Callable[..., Tensor | tuple[Tensor, ...]]


class Targets(NamedTuple):
    """What outputs are compared with: labels [B, ...], and a teacher's outputs (none without)."""

    labels: Tensor
    teacher: tuple[Tensor, ...]


class TaskBatches:
    """Shuffled batches of a task's split; every epoch draws its samples anew.

    The split is read in order, as tasks offer it; only the samples of one epoch are in memory.
    Some samples, evenly spread over the split, are set aside: no epoch draws them.
    """

    def __init__(
        self,
        task: Task,
        split: str,
        samples: int,
        batch_size: int,
        teacher: Teacher | None = None,
        augment: Augment | None = None,
        views: int | None = None,
        with_labels: bool = True,
    ) -> None:
        """Count the split.

        Args:
            task: gives inputs float32 and labels.
            split: its name.
            samples: how many an epoch takes, at most; an incomplete last batch is dropped.
            batch_size: samples per batch, fewer only where the split has fewer.
            teacher: run without gradients on every batch, for ``Targets.teacher``.
            augment: changes the first input of every batch, before the teacher sees it.
            views: in how many ways ``augment`` changes the samples, the same ones in every run; an
                epoch shows all of its samples in one of them, drawn anew. None changes them
                otherwise every time.
            with_labels: False leaves labels out, which may then be anything: [B, 0].

        Raises:
            BadInputError: the split is missing or empty.
        """
        self._task, self._split = task, split
        self._teacher, self._augment, self._views = teacher, augment, views
        self._with_labels = with_labels
        self._count = sum(len(b.labels) for b in task.batches(split, READ_BATCH))
        if self._count == 0:
            raise BadInputError(f"the split '{split}' of task '{task.name}' has no samples")
        self._set_aside = samples_set_aside(self._count)
        self._drawn_from = np.setdiff1d(np.arange(self._count), self._set_aside)
        self._samples = min(samples, len(self._drawn_from))
        self._batch_size = min(batch_size, self._samples)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self._samples // self._batch_size

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[tuple[Tensor, ...], Targets]]:
        """Yield one epoch of (inputs, targets) drawn by ``generator``."""
        drawn = torch.randperm(len(self._drawn_from), generator=generator)[: self._samples]
        view = None
        if self._augment is not None and self._views is not None:
            view = int(torch.randint(self._views, (), generator=generator))
        inputs, labels = self._read(np.sort(self._drawn_from[drawn.numpy()]), view)
        order = torch.randperm(self._samples, generator=generator)
        for step in range(len(self)):
            part = order[step * self._batch_size : (step + 1) * self._batch_size]
            batch = tuple(x[part] for x in inputs)
            if self._augment is not None and view is None:
                batch = (_augmented(self._augment, batch[0], generator), *batch[1:])
            yield batch, self._targets(batch, labels[part])

    @property
    def set_aside(self) -> int:
        """Number of samples that no epoch draws."""
        return len(self._set_aside)

    def those_set_aside(self) -> Iterator[tuple[tuple[Tensor, ...], Targets]]:
        """Yield the samples that are set aside, as they are, in batches."""
        for start in range(0, len(self._set_aside), self._batch_size):
            inputs, labels = self._read(self._set_aside[start : start + self._batch_size], None)
            yield inputs, self._targets(inputs, labels)

    def first(self) -> tuple[tuple[Tensor, ...], Targets]:
        """Return the first samples of the split, as they are, without a teacher's answers."""
        inputs, labels = self._read(np.arange(self._batch_size), None)
        return inputs, Targets(labels, ())

    def _targets(self, batch: tuple[Tensor, ...], labels: Tensor) -> Targets:
        with torch.no_grad():
            return Targets(labels, () if self._teacher is None else as_tuple(self._teacher(*batch)))

    def _read(
        self, wanted: "np.typing.NDArray[np.intp]", view: int | None
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return samples by ascending index: inputs [n, ...], in a view, and labels [n, ...]."""
        parts = []
        start = 0
        for batch in self._task.batches(self._split, READ_BATCH):
            end = start + len(batch.labels)
            rows = wanted[(wanted >= start) & (wanted < end)] - start
            arrays = batch.inputs if view is None else self._changed(batch.inputs, view, start)
            given = batch.labels if self._with_labels else np.empty((len(batch.labels), 0))
            parts.append([np.asarray(x)[rows] for x in (*arrays, given)])
            if parts[-1][-1].dtype.kind not in "biuf":
                raise BadInputError(
                    f"labels of the split '{self._split}' of task '{self._task.name}' are "
                    f"{parts[-1][-1].dtype}: training takes numbers"
                )
            start = end
            if end > wanted[-1]:
                break
        *inputs, labels = (torch.from_numpy(np.concatenate(c)) for c in zip(*parts, strict=True))
        return tuple(inputs), labels

    def _changed(self, inputs: tuple[Array, ...], view: int, start: int) -> tuple[Array, ...]:
        """Return a batch in one view; which, its place in the split and nothing else decides."""
        if self._augment is None:
            return inputs
        generator = torch.Generator().manual_seed(view * self._count + start)
        # A copy: the array may be the task's own, and augment may work in place.
        first = torch.from_numpy(np.array(inputs[0]))
        changed = _augmented(self._augment, first, generator).detach()
        return (changed.numpy(), *inputs[1:])


def _augmented(augment: Augment, x: Tensor, generator: torch.Generator) -> Tensor:
    changed: object = augment(x, generator)
    if isinstance(changed, Tensor) and changed.dtype == x.dtype and changed.shape == x.shape:
        return changed
    found = (
        f"{changed.dtype} {list(changed.shape)}"
        if isinstance(changed, Tensor)
        else type(changed).__name__
    )
    raise BadInputError(
        f"augment made {found} of a batch {x.dtype} {list(x.shape)}: it must return a tensor of "
        "the same shape and dtype"
    )


def samples_set_aside(count: int) -> "np.typing.NDArray[np.intp]":
    """Return the places of the samples of a split that are not trained on, ascending.

    >>> samples_set_aside(1000)[:3].tolist(), len(samples_set_aside(50_000))
    ([0, 10, 20], 1000)
    >>> len(samples_set_aside(100))
    0
    """
    aside = min(SET_ASIDE, int(count * SET_ASIDE_SHARE))
    if aside < LEAST_SET_ASIDE:
        return np.arange(0)
    return np.arange(aside) * count // aside


def batches_of_a_round(task: Task, samples: int, batch_size: int) -> int:
    """Return how many batches a round of training has; counts the samples that there are."""
    count = sum(len(b.labels) for b in task.batches(training_split(task), READ_BATCH))
    return max(1, min(samples, count - len(samples_set_aside(count))) // batch_size)
