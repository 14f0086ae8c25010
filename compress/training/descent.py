"""The optimizer of a run and the schedule of its learning rate, as its settings say."""

from typing import Any

import torch
from torch import Tensor, nn

from edgedl.compress.training.settings import TrainingSettings
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.wording import nearest

# How far momentum goes down and up while the learning rate goes up and down in one cycle.
MOMENTUM_SWING = 0.05


def make_optimizer(module: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Return the optimizer of all parameters that require a gradient.

    Raises:
        BadInputError: another peak is meant for a submodule that is not there, or no parameter
            requires a gradient.
    """
    groups = _parameter_groups(module, settings)
    if not groups:
        raise BadInputError("there is nothing to train: no parameter requires a gradient")
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(
            groups, settings.max_learning_rate, weight_decay=settings.weight_decay
        )
    return torch.optim.SGD(
        groups,
        lr=settings.max_learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.momentum > 0,
    )


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: TrainingSettings, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the schedule over ``steps`` steps of the optimizer."""
    if settings.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    peaks = [group["lr"] for group in optimizer.param_groups]
    if steps == 1:
        # The cycle would end where it begins, at a millionth of the peak.
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    momentum = settings.momentum
    swing = min(MOMENTUM_SWING, momentum, (1 - momentum) / 2)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        peaks,
        total_steps=steps,
        cycle_momentum=settings.optimizer == "sgd" and swing > 0,
        base_momentum=momentum - swing,
        max_momentum=momentum + swing,
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
            raise BadInputError(
                f"other_peaks names '{name}': the network has no such submodule"
                f"{nearest(name, known)}"
            )
    for path, parameter in module.named_parameters():
        owners = [name for name in settings.other_peaks if path.startswith(f"{name}.")]
        if parameter.requires_grad:
            groups[max(owners, key=len, default="")].append(parameter)
    peaks = {"": settings.max_learning_rate, **settings.other_peaks}
    return [{"params": own, "lr": peaks[name]} for name, own in groups.items() if own]
