"""A user's task behind a check of all that it gives."""

from collections.abc import Iterable, Iterator, Sequence

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.checks import (
    TOP1,
    Scores,
    cast_note,
    check_labels,
    checked_samples,
    checked_scores,
    narrowed,
)
from edgedl.runtime.task.kept_splits import Array
from edgedl.runtime.task.task import ArrayTask, Batch, Task, WrappedTask, with_splits

MEMBERS = ("name", "metric", "classes", "preprocessing", "batches", "score")


class CheckedTask(WrappedTask):
    """A task whose batches and scores are what ``Task`` says; float64 inputs become float32."""

    def __init__(self, task: Task) -> None:
        """Take a task, which need not have the attribute ``splits``.

        Raises:
            BadInputError: it lacks another one.
        """
        lacking = [name for name in MEMBERS if not hasattr(task, name)]
        if lacking:
            raise BadInputError(
                f"the task, a {type(task).__name__}, has no {', '.join(lacking)}: see edgedl.Task"
            )
        super().__init__(with_splits(task))
        self._was_cast = False

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what was done with the data that the user may not expect."""
        own = tuple(getattr(self._task, "notes", ()))
        return (*own, cast_note(self.name)) if self._was_cast else own

    @classmethod
    def of(cls, task: Task) -> "CheckedTask | ArrayTask":
        """Return a task behind the check; itself if it checks what it gives."""
        return task if isinstance(task, cls | ArrayTask) else cls(task)

    def batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """Yield a split in order.

        Raises:
            BadInputError: what comes is no pair of inputs and labels of one length, or a label is
                no class's number.
        """
        where = f"split '{split}' of task '{self.name}'"
        given: object = self._task.batches(split, batch_size)
        if not isinstance(given, Iterable):
            raise BadInputError(
                f"batches of task '{self.name}' gave a {type(given).__name__}: it must yield "
                "Batch(inputs, labels)"
            )
        for batch in given:
            samples = checked_samples(where, batch)
            inputs, labels = narrowed(samples)
            self._was_cast |= inputs is not samples.inputs
            if self.metric == TOP1 and self.classes:
                known = f"and the task has {len(self.classes)} classes"
                check_labels(where, labels, len(self.classes), known)
            yield Batch(inputs, labels)

    def score(self, outputs: Sequence[Array], labels: Array) -> Scores:
        """Score each sample of a batch.

        Raises:
            BadInputError: the scores are not one finite number per sample.
        """
        return checked_scores(self.name, self._task.score(outputs, labels), len(labels))
