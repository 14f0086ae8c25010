"""Stages train on "train" where a task has it; where they take calibration data, they say so."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from listening import notes_to
from tiny import make_subject, make_task, pictures

from edgedl.compress.distill.fine_tune import FineTune
from edgedl.compress.pipeline import compress
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.quantize.qat.train_quantized import TrainQuantized
from edgedl.compress.recipe.recipe import Recipe
from edgedl.compress.state import ModelState
from edgedl.compress.targets.named import ORT
from edgedl.compress.training.training_data import calibration_notes, choose_split
from edgedl.runtime.bundle.manifest import HistoryEntry
from edgedl.runtime.task.task import ArrayTask, Batch, Task, WrappedTask

TUNE = FineTune(epochs=1, samples=32, batch_size=16, learning_rate=0.01, distil=0.0)
PRUNE = PruneChannels(importance="taylor", samples=32, batch_size=16, multiple=2)
QAT = TrainQuantized(epochs=1, samples=16, batch_size=8)


class WithTrain:
    """A user's own task: it has a split "train", but does not name its splits."""

    def __init__(self, task: ArrayTask) -> None:
        train = {**task.splits, "train": lambda: pictures(64, 3)}
        self._whole = replace(task, splits=train)
        self.asked: list[tuple[str, int]] = []

    def __getattr__(self, name: str) -> Any:
        if name == "splits":
            raise AttributeError(name)
        return getattr(self._whole, name)

    def batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        self.asked.append((split, batch_size))
        return self._whole.batches(split, batch_size)


def with_task(state: ModelState, task: Task) -> ModelState:
    return replace(state, subject=replace(state.subject, task=task))


@pytest.mark.parametrize("stage", [TUNE, PRUNE])
def test_the_float_stages_read_the_training_split_of_a_task_that_names_none(
    float_state: ModelState, stage: Any
) -> None:
    task, heard = WithTrain(make_task()), list[str]()
    state = replace(with_task(float_state, task), progress=notes_to(heard.append))
    again = stage.apply(stage.apply(state))
    read = {split for split, size in task.asked if size > 2}
    assert read == {"train"}
    assert [size for split, size in task.asked if split == "train"].count(1) == 1
    assert not [line for line in heard if "calibration data" in line]
    assert calibration_notes(again.history, again.subject.task) == ()
    assert again.history[-1].settings.get("split", "train") == "train"


@pytest.mark.parametrize(
    ("stage", "name"), [(TUNE, "fine_tune"), (PRUNE, "prune_channels"), (QAT, "train_quantized")]
)
def test_training_on_calibration_data_is_said_and_written_down(
    float_state: ModelState, int8_state: ModelState, stage: Any, name: str
) -> None:
    heard: list[str] = []
    state = replace(int8_state if stage is QAT else float_state, progress=notes_to(heard.append))
    done = stage.apply(state)
    why = "task 'noise' names no split 'train'"
    assert f"{name} trains on the calibration data: {why}" in heard
    assert done.history[-1].settings["split"] == "calibration"
    assert calibration_notes(done.history, done.subject.task) == (
        f"{name} trained on the calibration data: {why}",
    )


def test_importance_of_weights_reads_no_data_and_says_nothing(float_state: ModelState) -> None:
    heard: list[str] = []
    done = PruneChannels(multiple=2).apply(replace(float_state, progress=notes_to(heard.append)))
    assert "split" not in done.history[-1].settings
    assert not [line for line in heard if "calibration data" in line]


def test_a_part_of_a_task_has_its_training_split() -> None:
    task = ArrayTask("t", {"train": lambda: pictures(4, 1), "test": lambda: pictures(4, 2)})
    subject = replace(make_subject(), task=WrappedTask(task))
    state = ModelState(subject, None)
    assert choose_split(state, "mine") == "train"


def test_every_stage_is_noted_once() -> None:
    history = [HistoryEntry("mine", {"split": "calibration"})] * 2
    history += [HistoryEntry("other", {"split": "train"}), HistoryEntry("third", {})]
    (note,) = calibration_notes(history, make_subject().task)
    assert note.startswith("mine trained on the calibration data: ")


@pytest.mark.slow
def test_it_is_a_reason_to_doubt_the_bundle(tmp_path: Path) -> None:
    heard: list[str] = []
    subject = make_subject()
    made = compress(subject, Recipe("", (TUNE,)), (ORT,), tmp_path, progress=notes_to(heard.append))
    (note,) = [line for line in made.warnings if "calibration data" in line]
    assert note == "fine_tune trained on the calibration data: task 'noise' names no split 'train'"
    assert [line for line in heard if line.startswith("fine_tune trains on the calibration data")]
    assert made.bundle.manifest.history[-1].settings["split"] == "calibration"
