"""Run a torch module on a task and score it."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from edgedl.compress.device import device_of
from edgedl.runtime.task.task import Scores, Task

EVALUATION_BATCH = 250


def score_module(module: nn.Module, task: Task, split: str = "test") -> Scores:
    """Score every sample of a split in evaluation mode: float64 [N], in the split's order."""
    scores, device = [], device_of(module)
    with torch.no_grad(), evaluating(module):
        for batch in task.batches(split, EVALUATION_BATCH):
            outputs = as_tuple(
                module(
                    *(torch.from_numpy(np.ascontiguousarray(x)).to(device) for x in batch.inputs)
                )
            )
            scores.append(task.score([y.cpu().numpy() for y in outputs], batch.labels))
    return np.concatenate(scores)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode; every part of it gets its own mode back."""
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, was_training in training.items():
            part.training = was_training


def as_tuple(outputs: Tensor | tuple[Tensor, ...] | list[Tensor]) -> tuple[Tensor, ...]:
    """Return a module's output or outputs as a tuple."""
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
