"""The one training loop: reference models today, fine-tuning and distillation on the same terms."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from edgedl.compress.evaluate import as_tuple
from edgedl.compress.precision import float32_where_bfloat16_is_slow
from edgedl.runtime.errors import BadInputError, EdgedlError
from edgedl.runtime.files import atomic_write


class TrainingDivergedError(EdgedlError):
    """The loss stopped being a number; a smaller learning rate is the usual cure."""

    exit_code = 3


Targets = TypeVar("Targets")
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
    precision training", 2018.

    Attributes:
        epochs: passes over the training data.
        batch_size: samples per step.
        max_learning_rate: peak of the schedule.
        momentum: Nesterov momentum; "adamw" uses its own.
        weight_decay: L2 coefficient ("sgd") or decoupled decay ("adamw") on all parameters.
        label_smoothing: share of the target spread evenly over the classes.
        seed: fixes initial weights, order and augmentation.
        optimizer: "sgd" or "adamw".
        mixed_precision: compute in bfloat16 where that is safe; weights stay float32.
        max_gradient_norm: longer gradients are scaled down to it; None leaves them.
        schedule: "one_cycle" reaches the peak after 30 % of the steps; "cosine" starts there.
            Both end at (almost) zero.
        other_peaks: submodule -> its parameters' peak instead of ``max_learning_rate``.
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
    groups = _parameter_groups(module, settings)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(
            groups, settings.max_learning_rate, weight_decay=settings.weight_decay
        )
    return torch.optim.SGD(
        groups,
        lr=settings.max_learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=True,
    )


def _parameter_groups(module: nn.Module, settings: TrainingSettings) -> list[dict[str, Any]]:
    """Return the parameters that are trained, by their peak learning rate; empty groups left out.

    Raises:
        BadInputError: another peak is meant for a submodule that is not there.
    """
    groups: dict[str, list[Tensor]] = {"": [], **{name: [] for name in settings.other_peaks}}
    known = dict(module.named_modules())
    for name in settings.other_peaks:
        if name not in known:
            raise BadInputError(f"other_peaks names '{name}': the network has no such submodule")
    for path, parameter in module.named_parameters():
        owners = [name for name in settings.other_peaks if path.startswith(f"{name}.")]
        if parameter.requires_grad:
            groups[max(owners, key=len, default="")].append(parameter)
    peaks = {"": settings.max_learning_rate, **settings.other_peaks}
    return [{"params": own, "lr": peaks[name]} for name, own in groups.items() if own]


def _schedule(
    optimizer: torch.optim.Optimizer, settings: TrainingSettings, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if settings.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [group["lr"] for group in optimizer.param_groups],
        total_steps=steps,
        cycle_momentum=settings.optimizer == "sgd",
    )


class _Run:
    """Everything that must be saved to continue a training run exactly where it stopped."""

    def __init__(self, module: nn.Module, settings: TrainingSettings, steps: int) -> None:
        self.module = module
        self.optimizer = _optimizer(module, settings)
        self.schedule = _schedule(self.optimizer, settings, steps * settings.epochs)
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
            # A setting that is younger than the file had its default then.
            settings = TrainingSettings(**state["settings"])
            if settings == self.settings:
                self._restore(state)
        except Exception as error:
            # torch raises a dozen classes for files cut short, foreign, or of another network.
            raise BadInputError(
                f"{path} is not a whole checkpoint of this network ({type(error).__name__}): "
                "delete it to start from the beginning"
            ) from error
        if settings != self.settings:
            raise BadInputError(
                f"{path} was written with other settings ({state['settings']}): "
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
    batches: TrainingBatches[Targets],
    loss: Callable[[Any, Targets], Tensor],
    settings: TrainingSettings,
    checkpoint: Path | None = None,
    on_step: StepHook = lambda epoch, step, loss: None,
) -> list[EpochRecord]:
    """Train ``module`` in place and leave it in evaluation mode.

    Args:
        module: network with freshly seeded weights, or one to fine-tune; parameters that require
            no gradient stay as they are.
        batches: source of training batches.
        loss: maps (outputs, targets) to a scalar; outputs are float32 as the module returns them.
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
    batches: TrainingBatches[Targets],
    loss: Callable[[Any, Targets], Tensor],
    epoch: int,
    on_step: StepHook,
) -> EpochRecord:
    total = 0.0
    rate = 0.0
    start = time.perf_counter()
    for step, (inputs, targets) in enumerate(batches.epoch(run.generator), start=1):
        with torch.autocast("cpu", torch.bfloat16, enabled=run.settings.mixed_precision):
            outputs = run.module(*as_tuple(inputs))
        value = loss(_float32(outputs), targets)
        number = value.item()
        if not math.isfinite(number):
            raise TrainingDivergedError(
                f"the loss became {number} in epoch {epoch}, step {step}: "
                f"lower the learning rate (its peak is now {run.settings.max_learning_rate})"
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


def _float32(outputs: Any) -> Any:
    return outputs.float() if isinstance(outputs, Tensor) else tuple(y.float() for y in outputs)
