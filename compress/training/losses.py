"""What a network is fine-tuned for: its labels, the answers of a teacher, or both."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from edgedl.compress.training.distances import scaled_difference, softened_divergence
from edgedl.compress.training.task_batches import Targets
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.task import Task

Loss = Callable[[tuple[Tensor, ...], Targets], Tensor]
LabelLoss = Callable[[tuple[Tensor, ...], Tensor], Tensor]


def fine_tuning_loss(
    task: Task, distil: float, temperature: float, labels: LabelLoss | None = None
) -> Loss:
    """Return ``distil`` times the distance from the teacher plus the rest times the labels' loss.

    For a classification, logits in the first output: the Kullback-Leibler divergence from the
    teacher's softened answers times the temperature squared, and cross-entropy. For any other
    task: the squared difference of all outputs, over the variance of each of their channels.

    Args:
        task: says whether it is a classification.
        distil: 0 to 1.
        temperature: softens both sides of the divergence.
        labels: what labels cost; None for cross-entropy.

    Raises:
        BadInputError: the task's labels have no known loss, and they count. The loss raises it
            where a label is no class of the network.

    Source: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015, section 2.
    """
    classification = is_classification(task)
    if distil < 1 and labels is None and not classification:
        raise BadInputError(
            f"the task '{task.name}' is no classification, so its labels have no known loss: "
            "set distil to 1 to train on the float network's outputs, or give the Subject a loss"
        )

    def loss(outputs: tuple[Tensor, ...], targets: Targets) -> Tensor:
        total = torch.zeros((), device=outputs[0].device)
        if classification and labels is None and (distil < 1 or outputs[0].ndim > 2):
            _check_shapes(outputs[0], targets.labels)
        if distil > 0:
            apart = (
                softened_divergence(outputs[0], targets.teacher[0], temperature)
                if classification
                else scaled_difference(outputs, targets.teacher)
            )
            total = total + distil * apart
        if distil < 1:
            own = (
                label_loss(outputs[0], targets.labels)
                if labels is None
                else (labels(outputs, targets.labels))
            )
            total = total + (1 - distil) * own
        return total

    return loss


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of logits [B, K, ...] at class numbers [B, ...].

    Raises:
        BadInputError: the shapes do not fit, or a label is no class of the network.
    """
    _check_shapes(logits, labels)
    _check_labels(labels, logits.shape[1])
    return F.cross_entropy(logits, labels.long())


def _check_shapes(logits: Tensor, labels: Tensor) -> None:
    wanted = [logits.shape[0], *logits.shape[2:]]
    if list(labels.shape) != wanted:
        raise BadInputError(
            f"a batch of labels has shape {list(labels.shape)}, for logits {list(logits.shape)} it "
            f"must be {wanted}: one class number for each sample or place, classes on axis 1"
        )


def _check_labels(labels: Tensor, classes: int) -> None:
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= classes:
        raise BadInputError(
            f"labels go from {lowest} to {highest}, the network has {classes} classes, from 0: is "
            "it made for other labels?"
        )


def is_classification(task: Task) -> bool:
    """Say whether labels are class numbers and the first output is a logit per class."""
    return bool(task.classes) or task.metric == "top1"
