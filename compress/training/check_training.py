"""What a subject must have to be trained; it is looked at before any stage has begun."""

import traceback
from pathlib import Path

import torch

from edgedl.compress.errors import first_line
from edgedl.compress.subject.outputs import as_tuple
from edgedl.compress.subject.subject import Subject
from edgedl.compress.subject.untouched import evaluating
from edgedl.compress.training.losses import LabelLoss
from edgedl.compress.training.subject_loss import SubjectLoss
from edgedl.compress.training.task_batches import TaskBatches
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.task import training_split

# Samples that the loss is tried on.
TRIED = 2


def check_training(subject: Subject, distil: float) -> None:
    """Try the loss of a subject's labels on its first training samples, if labels count.

    Args:
        subject: whose module answers.
        distil: weight of the teacher's answers, as the user has set it.

    Raises:
        BadInputError: the loss raises or gives no number that can be trained on, labels are no
            numbers or no classes of the network, or there are no samples.
    """
    loss = SubjectLoss.of(subject, distil)
    if loss.labels is not None and loss.distil < 1:
        check_label_loss(subject, loss.labels)


def check_label_loss(subject: Subject, loss: LabelLoss) -> None:
    """Try a loss on the first training samples; it raises what ``check_training`` does."""
    batches = TaskBatches(subject.task, training_split(subject.task), TRIED, TRIED)
    inputs, targets = batches.first()
    # In evaluation mode, so that the user's batch norms keep their statistics.
    with evaluating(subject.module), torch.no_grad():
        outputs = as_tuple(subject.module(*inputs))
    outputs = tuple(y.detach().requires_grad_(y.is_floating_point()) for y in outputs)
    found: object = _value(subject, loss, outputs, targets.labels)
    if not isinstance(found, torch.Tensor) or found.numel() != 1:
        shape = list(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise BadInputError(
            f"the loss of the subject '{subject.name}' returns {shape}: it must return a tensor "
            "of one number, the mean over the samples"
        )
    if not found.requires_grad:
        raise BadInputError(
            f"the loss of the subject '{subject.name}' has no gradient: it must be computed of "
            "the outputs by torch, without detach or numpy"
        )
    if not torch.isfinite(found):
        raise BadInputError(
            f"the loss of the subject '{subject.name}' is {float(found)} on its first training "
            "samples"
        )


def _value(
    subject: Subject, loss: LabelLoss, outputs: tuple[torch.Tensor, ...], labels: torch.Tensor
) -> object:
    try:
        return loss(outputs, labels)
    except BadInputError:
        raise
    except Exception as error:
        # The loss is the user's own, and raises whatever it likes.
        shapes = ", ".join(str(list(y.shape)) for y in outputs)
        raise BadInputError(
            f"the loss of the subject '{subject.name}' raises {type(error).__name__}{_line(error)} "
            f"for outputs {shapes} and labels {list(labels.shape)}: {first_line(error)}"
        ) from error


def _line(error: Exception) -> str:
    """Return the place in a file that is neither torch's nor edgedl's, the innermost one."""
    places = [
        f" in {Path(frame.f_code.co_filename).name}, line {line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in ("torch", "edgedl")
    ]
    return places[-1] if places else ""
