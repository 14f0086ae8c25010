"""A training run as it stands: everything that going on exactly where it stopped takes.

A checkpoint can be gone on with on another device. What dropout draws is kept of the CPU alone.
"""

import copy
import io
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgedl.compress.subject.layout import ChannelsLast
from edgedl.compress.training.average import WeightAverage
from edgedl.compress.training.descent import make_optimizer, make_schedule
from edgedl.compress.training.processes import Processes
from edgedl.compress.training.settings import (
    EpochRecord,
    TrainingDivergedError,
    TrainingSettings,
)
from edgedl.runtime.bundle.files import atomic_write
from edgedl.runtime.errors import BadInputError

Score = Callable[[nn.Module], float]


class Run:
    """A network that is trained, with its optimizer, schedule, averages and records.

    Attributes:
        module: the network, changed in place.
        layout: of its weights and inputs in memory.
        processes: who trains it.
        forward: what to call in its place.
        optimizer: of its parameters.
        schedule: of the learning rate.
        batches: per epoch.
        generator: what the batches are drawn with.
        settings: as given.
        average: of the weights, if one is kept.
        records: of the epochs that are done.
        best: the state of the best epoch, if the run may end with another than the last.
    """

    def __init__(
        self, module: nn.Module, settings: TrainingSettings, batches: int, processes: Processes
    ) -> None:
        """Begin a run of ``batches`` batches per epoch."""
        steps = math.ceil(batches / settings.accumulate) * settings.epochs
        self.module = module
        self.layout = ChannelsLast(module)
        self.processes = processes
        self.forward = processes.wrap(module)
        self.optimizer = make_optimizer(module, settings)
        self.schedule = make_schedule(self.optimizer, settings, steps)
        self.batches = batches
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.settings = settings
        decay = settings.ema_decay
        self.average = None if decay is None else WeightAverage(module, decay)
        self.records: list[EpochRecord] = []
        self.best: dict[str, Any] | None = None

    @property
    def is_over(self) -> bool:
        """Say whether all epochs are done, or so many without a better one that it may stop."""
        done, patience = len(self.records), self.settings.patience
        stale = done - self._best_epoch() if done else 0
        return done >= self.settings.epochs or (patience is not None and stale >= patience)

    def step(self) -> float:
        """Move the weights along their gradients; return the learning rate of the step."""
        if self.settings.max_gradient_norm is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.settings.max_gradient_norm)
        self.optimizer.step()
        rate = float(self.schedule.get_last_lr()[0])
        self.schedule.step()
        return rate

    def end_epoch(self, record: EpochRecord, score: Score | None) -> None:
        """Write an epoch down, judged by the weights the run would end with now.

        Raises:
            TrainingDivergedError: the score is not a number.
        """
        with nullcontext() if self.average is None else self.average.in_place():
            if score is not None:
                self.module.eval()
                found = self.processes.from_writer(float(score(self.module)))
                record = replace(record, score=found)
                if math.isnan(record.merit):
                    raise TrainingDivergedError(
                        f"the score became nan after epoch {record.epoch}: "
                        "lower the learning rate, or look at what scores"
                    )
            self.records.append(record)
            keeps = self.settings.keep_best or self.settings.patience is not None
            if keeps and self._best_epoch() == len(self.records):
                self.best = copy.deepcopy(self.module.state_dict())

    def end(self) -> None:
        """Leave the network in evaluation mode with what the settings promise."""
        if self.best is not None:
            self.module.load_state_dict(self.best)
        elif self.average is not None:
            self.average.exchange()
        self.module.eval()

    def save(self, path: Path) -> None:
        """Write a checkpoint; the one before stays whole until the new one is.

        Raises:
            BadInputError: the disk is full, or the folder cannot be written.
        """
        state = {
            "settings": asdict(self.settings),
            "batches": self.batches,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "torch_generator": torch.get_rng_state(),
            "records": [asdict(r) for r in self.records],
            "average": None if self.average is None else self.average.tensors,
            "best": self.best,
        }
        # Through memory: on a full disk torch's writer fails on an offset and says no more.
        content = io.BytesIO()
        torch.save(state, content)
        try:
            with atomic_write(path) as out:
                out.write(content.getbuffer())
        except OSError as error:
            done = len(self.records)
            kept = f"that of epoch {done - 1} is whole" if path.is_file() else "there is none yet"
            raise BadInputError(
                f"{path}: the checkpoint of epoch {done} could not be written, {kept} "
                f"({error.strerror or error}): make room on the disk, "
                "then start again the same way to go on from the last whole one"
            ) from error

    def load(self, path: Path, scored: bool) -> None:
        """Go on from a checkpoint.

        Args:
            path: of the file.
            scored: whether the epochs of this run are scored.

        Raises:
            BadInputError: the file is damaged, or of another network or other settings.
        """
        try:
            state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
            # A setting that is younger than the file had its default then.
            settings = TrainingSettings(**state["settings"])
            records = [EpochRecord(**r) for r in state["records"]]
            # Files from before it was kept say nothing of it.
            batches = state.get("batches", self.batches)
            if (settings, batches) == (self.settings, self.batches):
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
        if batches != self.batches:
            raise BadInputError(
                f"{path} was written with {batches} batches per epoch, there are {self.batches} "
                "now: use the same data, or another folder"
            )
        if any((record.score is not None) != scored for record in records):
            raise BadInputError(
                f"{path} was written {'without' if scored else 'with'} a score after every epoch, "
                "and its epochs cannot be compared with those of this run: use another folder"
            )
        self.records = records

    def _restore(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_generator"])
        # Files from before there were averages have neither key, and settings that ask for none.
        if self.average is not None:
            averages: list[Tensor] = state["average"]
            self.average.load(averages)
        self.best = state.get("best")

    def _best_epoch(self) -> int:
        """Return the first epoch, from 1, that no other is better than."""
        return max(self.records, key=lambda record: record.merit).epoch
