"""Whether training has gained anything, on samples that it does not see."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from edgedl.compress.device import device_of, to_device
from edgedl.compress.training.loop import Loss, StepHook, train
from edgedl.compress.training.settings import EpochRecord, TrainingSettings
from edgedl.compress.training.task_batches import Targets, TaskBatches
from edgedl.runtime.bundle.manifest import Setting
from edgedl.runtime.progress import Progress
from edgedl.runtime.wording import counted


class SamplesSetAside:
    """Scores a network by the training loss on the samples that are set aside.

    The network was trained on the split before, those samples included, so a state that has only
    learned the others does not look better than the start.
    """

    def __init__(self, batches: TaskBatches, loss: Loss[Targets]) -> None:
        """Take the samples, and the loss of the training."""
        self._batches, self._loss = batches, loss

    def score(self, module: nn.Module) -> float:
        """Return minus the mean loss: higher is better. The network stays as it is.

        Args:
            module: in evaluation mode, on any device.
        """
        device, total = device_of(module), 0.0
        with torch.inference_mode():
            for batch in self._batches.those_set_aside():
                inputs, targets = to_device(batch, device)
                total += float(self._loss(module(*inputs), targets)) * len(targets.labels)
        return -total / self._batches.set_aside


def train_and_compare(
    module: nn.Module,
    batches: TaskBatches,
    loss: Loss[Targets],
    settings: TrainingSettings,
    checkpoint: Path | None,
    on_step: StepHook,
    progress: Progress,
) -> tuple[list[EpochRecord], "Gain"]:
    """Train as ``train`` does, end with the best epoch, and say what was gained.

    Where the split is too small to set samples aside, the last epoch counts.
    """
    if not batches.set_aside:
        records = train(
            module, batches, loss, settings, checkpoint, on_step=on_step, progress=progress
        )
        return records, Gain(0)
    aside = SamplesSetAside(batches, loss)
    start = aside.score(module.eval())
    settings = replace(settings, keep_best=True)
    records = train(
        module,
        batches,
        loss,
        settings,
        checkpoint,
        on_step=on_step,
        score=aside.score,
        progress=progress,
    )
    gain = Gain.of(batches.set_aside, start, records)
    gain.tell(progress)
    return records, gain


@dataclass(frozen=True)
class Gain:
    """What training came to on the samples that were set aside.

    Attributes:
        samples: how many those are; 0 where the split is too small, and nothing is known.
        before: loss of the network that training began with.
        after: loss of the best epoch. epoch: that one, from 1.
    """

    samples: int
    before: float = 0.0
    after: float = 0.0
    epoch: int = 0

    @classmethod
    def of(cls, samples: int, start: float, records: Sequence[EpochRecord]) -> "Gain":
        """Compare the best epoch with the start, which scored ``start``."""
        best = max(records, key=lambda record: record.merit)
        return cls(samples, -start, -best.merit, best.epoch)

    @property
    def is_none(self) -> bool:
        """Whether the network had better stay what it was."""
        return bool(self.samples) and not self.after < self.before

    def tell(self, progress: Progress) -> None:
        """Say it."""
        if not self.samples:
            return
        on = f"the loss on {counted(self.samples, 'sample')} that were set aside"
        if self.is_none:
            progress.note(
                f"nothing gained, the network stays as it was: {on} is {self.before:.4g}, "
                f"after training {self.after:.4g} at best"
            )
        else:
            progress.note(
                f"{on} went from {self.before:.4g} to {self.after:.4g} (epoch {self.epoch})"
            )

    @property
    def recorded(self) -> dict[str, Setting]:
        """What a history says of it."""
        if not self.samples:
            return {}
        return {
            "set_aside": self.samples,
            "loss_before": self.before,
            "loss_after": self.after,
            "kept_epoch": 0 if self.is_none else self.epoch,
        }
