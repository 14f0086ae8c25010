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

Teacher = Callable[..., Tensor | tuple[Tensor, ...]]


class Targets(NamedTuple):
    """What outputs are compared with: labels [B, ...], and a teacher's outputs (none without)."""

    labels: Tensor
    teacher: tuple[Tensor, ...]


class TaskBatches:
    """Shuffled batches of a task's split; every epoch draws its samples anew.

    The split is read in order, as tasks offer it; only the samples of one epoch are in memory.
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
        self._samples = min(samples, self._count)
        self._batch_size = min(batch_size, self._samples)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self._samples // self._batch_size

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[tuple[Tensor, ...], Targets]]:
        """Yield one epoch of (inputs, targets) drawn by ``generator``."""
        drawn = torch.randperm(self._count, generator=generator)[: self._samples]
        view = None
        if self._augment is not None and self._views is not None:
            view = int(torch.randint(self._views, (), generator=generator))
        inputs, labels = self._read(np.sort(drawn.numpy()), view)
        order = torch.randperm(self._samples, generator=generator)
        for step in range(len(self)):
            part = order[step * self._batch_size : (step + 1) * self._batch_size]
            batch = tuple(x[part] for x in inputs)
            if self._augment is not None and view is None:
                batch = (_augmented(self._augment, batch[0], generator), *batch[1:])
            with torch.no_grad():
                answers = () if self._teacher is None else as_tuple(self._teacher(*batch))
            yield batch, Targets(labels[part], answers)

    def first(self) -> tuple[tuple[Tensor, ...], Targets]:
        """Return the first samples of the split, as they are, without a teacher's answers."""
        inputs, labels = self._read(np.arange(self._batch_size), None)
        return inputs, Targets(labels, ())

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


def batches_of_a_round(task: Task, samples: int, batch_size: int) -> int:
    """Return how many batches a round of training has; counts the samples that there are."""
    count = sum(len(b.labels) for b in task.batches(training_split(task), READ_BATCH))
    return max(1, min(samples, count) // batch_size)
