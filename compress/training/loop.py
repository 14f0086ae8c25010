"""The loop itself: epochs of batches, a checkpoint after each."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from edgedl.compress.device import device_of, to_device
from edgedl.compress.training.mixed_precision import (
    float32_where_bfloat16_is_slow,
    has_bfloat16,
    no_bfloat16,
)
from edgedl.compress.training.processes import OneProcess, Processes
from edgedl.compress.training.run import Run, Score
from edgedl.compress.training.settings import (
    EpochRecord,
    TrainingBatches,
    TrainingDivergedError,
    TrainingSettings,
)
from edgedl.runtime.progress import SILENT, Progress
from edgedl.runtime.wording import about

Targets = TypeVar("Targets")
Loss = Callable[[Any, Targets], Tensor]
StepHook = Callable[[int, int, float], None]


def train(
    module: nn.Module,
    batches: TrainingBatches[Targets],
    loss: Loss[Targets],
    settings: TrainingSettings,
    checkpoint: Path | None = None,
    on_step: StepHook = lambda epoch, step, loss: None,
    score: Score | None = None,
    processes: Processes | None = None,
    progress: Progress = SILENT,
) -> list[EpochRecord]:
    """Train ``module`` in place and leave it in evaluation mode.

    Args:
        module: network with freshly seeded weights, or one to fine-tune, on the device that it
            is to be trained on; parameters that require no gradient stay as they are.
        batches: source of training batches, which are moved to the module's device.
        loss: maps (outputs, targets) to a scalar; outputs are float32 as the module returns them.
        settings: schedule and seed.
        checkpoint: written after every epoch; if it exists, the run continues from it.
        on_step: called after every batch, and the step it may end, with epoch (from 1), batch
            (from 1) and loss.
        score: called after every epoch with the module in evaluation mode, holding the weights
            that the run would end with then (averages, if there are any); returns how good they
            are, higher is better. It must leave the module as it is.
        processes: who trains; this process alone if nothing is said. Of several, each is called
            with the same module, batches and settings, and needs a loss that is a mean over the
            samples; one writes the checkpoint, and its score counts.
        progress: says what each epoch came to, with the time left, and where mixed precision is
            not used.

    Returns:
        One record per epoch, those before a resumption included; fewer than ``settings.epochs``
        where the run stopped early.

    Raises:
        TrainingDivergedError: when the loss is infinite or not a number.
        BadInputError: when the checkpoint is damaged, belongs to other settings, or cannot be
            written.
    """
    processes = processes or OneProcess()
    device = device_of(module)
    run = Run(module, settings, len(batches), processes)
    if checkpoint is not None and checkpoint.is_file():
        run.load(checkpoint, scored=score is not None)
    mixed = settings.mixed_precision and has_bfloat16(device)
    if settings.mixed_precision and not mixed:
        progress.note(no_bfloat16(device))
    try:
        with float32_where_bfloat16_is_slow(module) if mixed else nullcontext():
            while not run.is_over:
                module.train()
                run.end_epoch(_train_epoch(run, batches, loss, on_step, mixed), score)
                if checkpoint is not None and processes.writes:
                    run.save(checkpoint)
                progress.note(_epoch(run.records, settings.epochs))
        run.end()
    finally:
        run.layout.end()
    return run.records


def _train_epoch(
    run: Run,
    batches: TrainingBatches[Targets],
    loss: Loss[Targets],
    on_step: StepHook,
    mixed: bool,
) -> EpochRecord:
    epoch, count, size = len(run.records) + 1, len(batches), run.settings.accumulate
    device = device_of(run.module)
    total = rate = 0.0
    start = time.perf_counter()
    for step, batch in enumerate(batches.epoch(run.generator), start=1):
        inputs, targets = to_device(run.processes.share(batch), device)
        with torch.autocast(device.type, torch.bfloat16) if mixed else nullcontext():
            outputs = run.forward(*run.layout.lay_out(_given(inputs)))
        value = run.processes.weigh(loss(_float32(outputs), targets), inputs, batch[0])
        number = run.processes.mean(value)
        if not math.isfinite(number):
            raise TrainingDivergedError(
                f"the loss became {number} in epoch {epoch}, step {step}: "
                f"lower the learning rate (its peak is now {run.settings.max_learning_rate})"
            )
        place = (step - 1) % size
        if place == 0:
            run.optimizer.zero_grad()
        # The last step of an epoch may have fewer batches than the others.
        (value / min(size, count - step + place + 1)).backward()
        stepped = place == size - 1 or step == count
        if stepped:
            rate = run.step()
        total += number
        on_step(epoch, step, number)
        # After the hook, which may have held weights at zero.
        if stepped and run.average is not None:
            run.average.update()
    return EpochRecord(epoch, total / count, rate, time.perf_counter() - start)


def _epoch(records: list[EpochRecord], epochs: int) -> str:
    last = records[-1]
    left = (epochs - last.epoch) * sum(r.seconds for r in records) / len(records)
    return f"epoch {last.epoch}/{epochs}: loss {last.mean_loss:.4f}, {about(left)} left"


def _given(inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the inputs of a batch, ids as integers."""
    return inputs if isinstance(inputs, tuple) else (inputs,)


def _float32(outputs: Any) -> Any:
    return outputs.float() if isinstance(outputs, Tensor) else tuple(y.float() for y in outputs)
