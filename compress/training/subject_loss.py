"""What the networks of a subject are trained for, by its task and its own loss."""

from dataclasses import dataclass

from edgedl.compress.state import ModelState
from edgedl.compress.subject.subject import Subject
from edgedl.compress.training.losses import (
    LabelLoss,
    Loss,
    fine_tuning_loss,
    is_classification,
    label_loss,
)
from edgedl.runtime.bundle.manifest import Setting


@dataclass(frozen=True)
class SubjectLoss:
    """What a stage trains for.

    Attributes:
        labels: what labels cost: the subject's own loss, or cross-entropy; None if none is known.
        distil: weight of the teacher's answers: all of it where labels have no known loss.
        reads_labels: whether they are looked at: those of classes say where the classes are.
    """

    labels: LabelLoss | None
    distil: float
    reads_labels: bool

    @classmethod
    def of(cls, subject: Subject, distil: float) -> "SubjectLoss":
        """Return that of a subject, where the user wants the teacher to have some weight."""
        labels = loss_of_labels(subject)
        share = 1.0 if labels is None else distil
        return cls(labels, share, share < 1 or is_classification(subject.task))

    @classmethod
    def chosen(cls, state: ModelState, stage: str, distil: float) -> "SubjectLoss":
        """Return that of a state's subject, and say where only the teacher counts."""
        found = cls.of(state.subject, distil)
        if found.distil != distil:
            state.progress.note(
                f"{stage}: the labels of task '{state.subject.task.name}' have no known loss, so "
                "it trains on the float network's answers only: give the Subject a loss, "
                "(outputs, labels) -> scalar tensor, to train on labels"
            )
        return found

    def function(self, subject: Subject, temperature: float) -> Loss:
        """Return the loss itself."""
        own = None if subject.loss is None else self.labels
        return fine_tuning_loss(subject.task, self.distil, temperature, own)

    def recorded(self, distil: float) -> dict[str, Setting]:
        """Return what a history says of it besides the setting."""
        return {} if self.distil == distil else {"weight_of_teacher": self.distil}


def loss_of_labels(subject: Subject) -> LabelLoss | None:
    """Return the subject's own loss, or cross-entropy of classes; None if neither is there."""
    own = subject.loss
    if own is not None:
        return lambda outputs, labels: own(outputs if len(outputs) > 1 else outputs[0], labels)
    if is_classification(subject.task):
        return lambda outputs, labels: label_loss(outputs[0], labels)
    return None
