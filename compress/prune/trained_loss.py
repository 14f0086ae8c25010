"""The loss whose changes say how much channels matter, and the samples that it is taken of."""

from collections.abc import Iterator

import torch
from torch import Tensor, fx

from edgedl.compress.prune.importance import Contributions, taylor
from edgedl.compress.subject.subject import Subject
from edgedl.compress.training.losses import LabelLoss
from edgedl.compress.training.subject_loss import loss_of_labels
from edgedl.compress.training.task_batches import TaskBatches
from edgedl.runtime.errors import BadInputError


def known_loss(subject: Subject) -> LabelLoss:
    """Return what the labels of a subject cost.

    Raises:
        BadInputError: that is not known.
    """
    loss = loss_of_labels(subject)
    if loss is None:
        raise BadInputError(
            f"importance 'taylor' needs labels of classes, task '{subject.task.name}' has none: "
            "use 'l2', or give the Subject a loss"
        )
    return loss


def labelled_changes(
    graph: fx.GraphModule, subject: Subject, split: str, samples: int, batch_size: int, seed: int
) -> list[Contributions]:
    """Return ``taylor`` of samples of a split, batch by batch.

    Args:
        graph: the network.
        subject: its data and loss.
        split: of the data.
        samples: how many.
        batch_size: of one pass.
        seed: of the order.

    Raises:
        BadInputError: the labels have no known loss.
    """
    loss = known_loss(subject)

    def batches() -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        drawn = TaskBatches(subject.task, split, samples, batch_size)
        for inputs, targets in drawn.epoch(torch.Generator().manual_seed(seed)):
            yield inputs, targets.labels

    return list(taylor(graph, batches(), loss))
