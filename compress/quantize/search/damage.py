"""How far a network's outputs are from the float network's: noise, task loss, score."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.task import Batch, Task


@dataclass(frozen=True)
class Damage:
    """What quantization does to the outputs, over all samples.

    Attributes:
        signal: sum of squares of the float network's outputs.
        noise: sum of squares of the differences to them.
        loss: for a classification the mean Kullback-Leibler divergence, in nats, from the float
            network's probabilities; else the mean squared error of the outputs.
        score: mean score of the task, labels in hand.
        flips: share of samples whose score differs from the float network's.
    """

    signal: float
    noise: float
    loss: float
    score: float
    flips: float

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise ratio in decibels; infinite without noise."""
        if self.noise == 0:
            return math.inf
        return -math.inf if self.signal == 0 else 10 * math.log10(self.signal / self.noise)


class DamageMeter:
    """Adds up the damage batch by batch."""

    def __init__(self, task: Task) -> None:
        """Start with no samples."""
        self._task = task
        self._samples = 0
        self._signal = self._noise = self._loss = self._score = self._flips = 0.0

    def add(self, exact: Sequence[Tensor], found: Sequence[Tensor], batch: Batch) -> None:
        """Count a batch: outputs [B, ...] of the float network, of the other one, and labels."""
        count = len(batch.labels)
        for a, b in zip(exact, found, strict=True):
            self._signal += float(a.double().square().sum())
            self._noise += float((b.double() - a.double()).square().sum())
        self._loss += count * task_loss(self._task, exact, found)
        expected, scores = (
            self._task.score([y.numpy() for y in outputs], batch.labels)
            for outputs in (exact, found)
        )
        self._score += float(scores.sum())
        self._flips += float((scores != expected).sum())
        self._samples += count

    def result(self) -> Damage:
        """Return the damage over all batches."""
        n = self._samples
        return Damage(self._signal, self._noise, self._loss / n, self._score / n, self._flips / n)


def task_loss(task: Task, exact: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """Return the mean loss of a batch against the float network's outputs.

    A network whose first output has one logit per class of the task, along axis 1, is a
    classifier: KL(float || other). Others get the mean squared error of all outputs.
    """
    first = exact[0]
    if task.classes and first.ndim > 1 and first.shape[1] == len(task.classes):
        target, other = (F.log_softmax(y[0].double(), 1) for y in (exact, found))
        return float(F.kl_div(other, target, reduction="none", log_target=True).sum(1).mean())
    errors = [(b.double() - a.double()).square() for a, b in zip(exact, found, strict=True)]
    return float(sum(e.sum() for e in errors)) / sum(e.numel() for e in errors)


def labelled_batches(task: Task, samples: int, batch_size: int) -> Iterator[Batch]:
    """Yield the first ``samples`` calibration samples with their labels.

    Raises:
        BadInputError: there are none.
    """
    left = samples
    for batch in itertools.islice(
        task.batches("calibration", batch_size), math.ceil(samples / batch_size)
    ):
        yield Batch(tuple(x[:left] for x in batch.inputs), batch.labels[:left])
        left -= len(batch.labels)
    if left == samples:
        raise BadInputError("there are no calibration samples")


def as_tensors(batch: Batch) -> tuple[Tensor, ...]:
    """Return a batch's inputs as float32 tensors [B, ...]."""
    return tuple(torch.tensor(x) for x in batch.inputs)
