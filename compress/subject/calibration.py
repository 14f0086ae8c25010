"""Inputs that ranges are found with."""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from edgedl.runtime.task.task import Task


def calibration_inputs(task: Task, samples: int, batch_size: int) -> Iterator[tuple[Tensor, ...]]:
    """Yield the first ``samples`` calibration inputs, float32 [B, ...] each."""
    full, rest = divmod(samples, batch_size)
    batches = task.batches("calibration", batch_size)
    for index, batch in enumerate(itertools.islice(batches, full + bool(rest))):
        count = rest if index == full else batch_size
        yield tuple(torch.tensor(x[:count]) for x in batch.inputs)
