"""What a training run is given, and what it says about itself."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

import torch
from torch import Tensor

from edgedl.runtime.errors import BadInputError, EdgedlError


class TrainingDivergedError(EdgedlError):
    """The loss stopped being a number; a smaller learning rate is the usual cure."""

    exit_code = 3


TargetsOut = TypeVar("TargetsOut", covariant=True)


class TrainingBatches(Protocol[TargetsOut]):
    """A source of shuffled training batches."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        ...

    def epoch(
        self, generator: torch.Generator
    ) -> Iterator[tuple[Tensor | tuple[Tensor, ...], TargetsOut]]:
        """Yield (inputs [B, ...], targets) for one epoch, in an order the generator fixes.

        Inputs are a tuple where the module takes several. Targets are what the loss compares the
        outputs with: labels [B], a teacher's outputs, or both.
        """
        ...


@dataclass(frozen=True)
class TrainingSettings:
    """Gradient descent, its learning rate following a schedule.

    Source: Smith, Topin, "Super-convergence", 2018 (the one-cycle schedule); Loshchilov, Hutter,
    "SGDR", 2017, equation 5 (the cosine, without restarts); "Decoupled weight decay
    regularization", 2019 (AdamW; without decay it is Adam); Micikevicius et al., "Mixed
    precision training", 2018; Polyak, Juditsky, "Acceleration of stochastic approximation by
    averaging", 1992, in the exponential form of Tarvainen, Valpola, "Mean teachers", 2017,
    equation 1 (averaged weights); Prechelt, "Early stopping - but when?", 1998, section 2.2,
    UP_s with strips of one epoch (patience).

    Attributes:
        epochs: passes over the training data.
        batch_size: samples per batch.
        max_learning_rate: peak of the schedule.
        momentum: Nesterov momentum, 0 to below 1; "one_cycle" goes 0.05 below it where the learning
            rate peaks and 0.05 above it at both ends (less near 0 and 1). "adamw" uses its own.
        weight_decay: L2 coefficient ("sgd") or decoupled decay ("adamw") on all parameters.
        label_smoothing: share of the target spread evenly over the classes.
        seed: fixes initial weights, order and augmentation.
        optimizer: "sgd" or "adamw".
        mixed_precision: compute in bfloat16 where that is safe and the device has it; weights
            stay float32.
        max_gradient_norm: longer gradients are scaled down to it; None leaves them.
        schedule: "one_cycle" reaches the peak after 30 % of the steps; "cosine" starts there.
            Both end at (almost) zero.
        other_peaks: submodule -> its parameters' peak instead of ``max_learning_rate``.
        accumulate: batches per step of the optimizer, their gradients averaged: what one batch of
            all their samples gives, to rounding, in a network without batch norm (which still
            sees ``batch_size`` samples at a time). The last step of an epoch has fewer where they
            do not divide it.
        ema_decay: end with an exponential moving average of the weights instead of the last ones;
            it reaches back about 1 / (1 - ema_decay) steps of the optimizer. None averages
            nothing.
        patience: stop after so many epochs in a row without a better score (or, where nothing
            scores, a smaller mean training loss), and end with the best epoch's weights. None
            never stops early and ends with the last weights.
        keep_best: end with the weights of the epoch that scored best, whenever that was.
    """

    epochs: int
    batch_size: int = 128
    max_learning_rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    seed: int = 0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    mixed_precision: bool = False
    max_gradient_norm: float | None = None
    schedule: Literal["one_cycle", "cosine"] = "one_cycle"
    other_peaks: Mapping[str, float] = field(default_factory=dict)
    accumulate: int = 1
    ema_decay: float | None = None
    patience: int | None = None
    keep_best: bool = False

    def __post_init__(self) -> None:
        """Reject settings that cannot train."""
        if self.epochs < 1 or self.batch_size < 1:
            raise BadInputError(
                f"epochs and batch_size must be at least 1, got {self.epochs}, {self.batch_size}"
            )
        if not all(peak > 0 for peak in (self.max_learning_rate, *self.other_peaks.values())):
            raise BadInputError(
                f"learning rates must be above 0, got {self.max_learning_rate}"
                + (f" and {dict(self.other_peaks)}" if self.other_peaks else "")
            )
        if not (0 <= self.momentum < 1 and 0 <= self.label_smoothing <= 1):
            raise BadInputError(
                "momentum goes from 0 to below 1, label_smoothing from 0 to 1, "
                f"got {self.momentum}, {self.label_smoothing}"
            )
        if self.weight_decay < 0:
            raise BadInputError(f"weight_decay must be at least 0, got {self.weight_decay}")
        if self.max_gradient_norm is not None and not self.max_gradient_norm > 0:
            raise BadInputError(f"max_gradient_norm must be above 0, got {self.max_gradient_norm}")
        if self.accumulate < 1 or (self.patience is not None and self.patience < 1):
            raise BadInputError(
                "accumulate and patience must be at least 1 (or patience null), "
                f"got {self.accumulate}, {self.patience}"
            )
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise BadInputError(
                f"ema_decay must be between 0 and 1, such as 0.999, got {self.ema_decay}"
            )


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch did.

    Attributes:
        epoch: its number from 1.
        mean_loss: over its training batches.
        learning_rate: of its last step.
        seconds: wall-clock time of its training.
        score: of the weights after it, where the caller scores them; higher is better.
    """

    epoch: int
    mean_loss: float
    learning_rate: float
    seconds: float
    score: float | None = None

    @property
    def merit(self) -> float:
        """Return what epochs are compared by; higher is better."""
        return -self.mean_loss if self.score is None else self.score
