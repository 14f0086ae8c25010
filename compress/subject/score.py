"""Run a torch module on a task and score it."""

import numpy as np
import torch
from torch import nn

from edgedl.compress.device import device_of
from edgedl.compress.subject.layout import ChannelsLast
from edgedl.compress.subject.outputs import as_tuple
from edgedl.compress.subject.untouched import evaluating
from edgedl.runtime.task.batch_size import fitting_batches
from edgedl.runtime.task.task import Scores, Task


def score_module(module: nn.Module, task: Task, split: str = "test") -> Scores:
    """Score every sample of a split in evaluation mode: float64 [N], in the split's order."""
    scores, device = [], device_of(module)
    with torch.no_grad(), evaluating(module):
        layout = ChannelsLast(module, weights=False)
        for batch in fitting_batches(task, split):
            inputs = [torch.tensor(np.asarray(x)).to(device) for x in batch.inputs]
            outputs = as_tuple(module(*layout.lay_out(inputs)))
            scores.append(task.score([y.cpu().numpy() for y in outputs], batch.labels))
    return np.concatenate(scores)
