"""The one training loop: reference models today, fine-tuning and distillation on the same terms."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from edgedl.compress.precision import float32_where_bfloat16_is_slow
from edgedl.runtime.errors import BadInputError, EdgedlError
from edgedl.runtime.files import atomic_write


class TrainingDivergedError(EdgedlError):
    """The loss stopped being a number; a smaller learning rate is the usual cure."""

    exit_code = 3


class TrainingBatches(Protocol):
    """A source of shuffled training batches."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        ...

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (inputs [B, ...], labels [B]) for one epoch, in an order the generator fixes."""
        ...


@dataclass(frozen=True)
class TrainingSettings:
    """Gradient descent with a one-cycle learning rate.

    Source: Smith, Topin, "Super-convergence", 2018 (the one-cycle schedule); Loshchilov, Hutter,
    "Decoupled weight decay regularization", 2019 (AdamW); Micikevicius et al., "Mixed precision
    training", 2018.

    Attributes:
        epochs: passes over the training data.
        batch_size: samples per step.
        max_learning_rate: peak of the cycle, reached after 30 % of the steps.
        momentum: Nesterov momentum; "adamw" uses its own.
        weight_decay: L2 coefficient ("sgd") or decoupled decay ("adamw") on all parameters.
        label_smoothing: share of the target spread evenly over the classes.
        seed: fixes initial weights, order and augmentation.
        optimizer: "sgd" or "adamw".
        mixed_precision: compute in bfloat16 where that is safe; weights stay float32.
        max_gradient_norm: longer gradients are scaled down to it; None leaves them.
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

    def __post_init__(self) -> None:
        """Reject settings that cannot train."""
        if self.epochs < 1 or self.batch_size < 1:
            raise BadInputError(
                f"epochs and batch_size must be at least 1, got {self.epochs}, {self.batch_size}"
            )
        if not self.max_learning_rate > 0:
            raise BadInputError(f"max_learning_rate must be above 0, got {self.max_learning_rate}")


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch did.

    Attributes:
        epoch: its number from 1.
        mean_loss: over its training batches.
        learning_rate: of its last step.
        seconds: wall-clock time.
    """

    epoch: int
    mean_loss: float
    learning_rate: float
    seconds: float


StepHook = Callable[[int, int, float], None]


def _optimizer(module: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(
            module.parameters(), settings.max_learning_rate, weight_decay=settings.weight_decay
        )
    return torch.optim.SGD(
        module.parameters(),
        lr=settings.max_learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=True,
    )


class _Run:
    """Everything that must be saved to continue a training run exactly where it stopped."""

    def __init__(self, module: nn.Module, settings: TrainingSettings, steps: int) -> None:
        self.module = module
        self.optimizer = _optimizer(module, settings)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            settings.max_learning_rate,
            total_steps=steps * settings.epochs,
            cycle_momentum=settings.optimizer == "sgd",
        )
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.settings = settings
        self.records: list[EpochRecord] = []

    def save(self, path: Path) -> None:
        state = {
            "settings": asdict(self.settings),
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "torch_generator": torch.get_rng_state(),
            "records": [asdict(r) for r in self.records],
        }
        with atomic_write(path) as out:
            torch.save(state, out)

    def load(self, path: Path) -> None:
        try:
            state: dict[str, Any] = torch.load(path, weights_only=True)
            settings = state["settings"]
            if settings == asdict(self.settings):
                self._restore(state)
        except Exception as error:
            # torch raises a dozen classes for files cut short, foreign, or of another network.
            raise BadInputError(
                f"{path} is not a whole checkpoint of this network ({type(error).__name__}): "
                "delete it to start from the beginning"
            ) from error
        if settings != asdict(self.settings):
            raise BadInputError(
                f"{path} was written with other settings ({settings}): "
                "use its settings, or another folder"
            )

    def _restore(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_generator"])
        self.records = [EpochRecord(**r) for r in state["records"]]


def train(
    module: nn.Module,
    batches: TrainingBatches,
    loss: Callable[[Tensor, Tensor], Tensor],
    settings: TrainingSettings,
    checkpoint: Path | None = None,
    on_step: StepHook = lambda epoch, step, loss: None,
) -> list[EpochRecord]:
    """Train ``module`` in place and leave it in evaluation mode.

    Args:
        module: network with freshly seeded weights.
        batches: source of training batches.
        loss: maps (outputs, labels) to a scalar.
        settings: schedule and seed.
        checkpoint: written after every epoch; if it exists, the run continues from it.
        on_step: called after every step with epoch (from 1), step (from 1) and loss.

    Returns:
        One record per epoch, those before a resumption included.

    Raises:
        TrainingDivergedError: when the loss is infinite or not a number.
        BadInputError: when the checkpoint is damaged or belongs to other settings.
    """
    run = _Run(module, settings, len(batches))
    if checkpoint is not None and checkpoint.is_file():
        run.load(checkpoint)
    with float32_where_bfloat16_is_slow(module) if settings.mixed_precision else nullcontext():
        for epoch in range(len(run.records) + 1, settings.epochs + 1):
            module.train()
            run.records.append(_train_epoch(run, batches, loss, epoch, on_step))
            if checkpoint is not None:
                run.save(checkpoint)
    module.eval()
    return run.records


def _train_epoch(
    run: _Run,
    batches: TrainingBatches,
    loss: Callable[[Tensor, Tensor], Tensor],
    epoch: int,
    on_step: StepHook,
) -> EpochRecord:
    total = 0.0
    rate = 0.0
    start = time.perf_counter()
    for step, (inputs, labels) in enumerate(batches.epoch(run.generator), start=1):
        with torch.autocast("cpu", torch.bfloat16, enabled=run.settings.mixed_precision):
            outputs = run.module(inputs)
        value = loss(outputs.float(), labels)
        number = value.item()
        if not math.isfinite(number):
            raise TrainingDivergedError(
                f"the loss became {number} in epoch {epoch}, step {step}: "
                f"lower max_learning_rate (now {run.settings.max_learning_rate})"
            )
        run.optimizer.zero_grad()
        value.backward()
        if run.settings.max_gradient_norm is not None:
            nn.utils.clip_grad_norm_(run.module.parameters(), run.settings.max_gradient_norm)
        run.optimizer.step()
        rate = float(run.schedule.get_last_lr()[0])
        run.schedule.step()
        total += number
        on_step(epoch, step, number)
    return EpochRecord(epoch, total / len(batches), rate, time.perf_counter() - start)
