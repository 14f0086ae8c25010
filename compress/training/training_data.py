"""What a stage trains on: its split, and that it is said where that is calibration data; where."""

from collections.abc import Iterable

import torch

from edgedl.compress.state import ModelState
from edgedl.compress.training.mixed_precision import has_bfloat16
from edgedl.runtime.bundle.manifest import HistoryEntry, Setting
from edgedl.runtime.task.task import TRAIN, Task, training_split, why_not_train


def choose_split(state: ModelState, stage: str) -> str:
    """Return the split that a stage trains on; and say where it is "calibration".

    The stage writes it into its history as the setting ``split``.
    """
    task = state.subject.task
    split = training_split(task)
    if split != TRAIN:
        state.progress.note(f"{stage} trains on the calibration data: {why_not_train(task)}")
    return split


def calibration_notes(history: Iterable[HistoryEntry], task: Task) -> tuple[str, ...]:
    """Return a note for every stage of a history that trained on the calibration data."""
    stages = [entry.stage for entry in history if entry.settings.get("split") == "calibration"]
    return tuple(
        f"{stage} trained on the calibration data: {why_not_train(task)}"
        for stage in dict.fromkeys(stages)
    )


def trained_on(device: torch.device) -> dict[str, Setting]:
    """Return what a history says of the device of its training: nothing of the CPU.

    >>> trained_on(torch.device("cuda", 1)), trained_on(torch.device("cpu"))
    ({'device': 'cuda:1'}, {})
    """
    return {} if device.type == "cpu" else {"device": str(device)}


def training_machine(device: torch.device, mixed_precision: bool) -> str | None:
    """Return what training depends on of the machine; None on the CPU in float32.

    >>> training_machine(torch.device("cuda", 1), mixed_precision=False)
    'cuda'
    """
    said = [] if device.type == "cpu" else [device.type]
    if mixed_precision:
        said.append("bfloat16" if has_bfloat16(device) else "no bfloat16")
    return ", ".join(said) or None
