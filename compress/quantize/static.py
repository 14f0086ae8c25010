"""The stage that quantizes weights and activations to int8 after training."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

import msgspec
import torch
from msgspec import Meta
from torch import Tensor

from edgedl.compress.quantize.calibrate import calibrate
from edgedl.compress.quantize.observers import Observer
from edgedl.compress.stage import ModelState
from edgedl.runtime.manifest import HistoryEntry
from edgedl.runtime.task import Task


class QuantizeStatic(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag_field="stage",
    tag="quantize_static",
):
    """Post-training static quantization: int8 per-channel weights, int8 activations.

    Attributes:
        samples: calibration samples; memory does not grow with them.
        batch_size: samples per forward pass.
        observer: how ranges are chosen, "mse" or "minmax".
    """

    samples: Annotated[int, Meta(ge=1)] = 512
    batch_size: Annotated[int, Meta(ge=1)] = 32
    observer: Observer = "mse"

    def apply(self, state: ModelState) -> ModelState:
        """Fill the encodings table from the calibration split."""
        batches = calibration_inputs(state.subject.task, self.samples, self.batch_size)
        encodings = calibrate(state.graph, batches, self.observer)
        entry = HistoryEntry("quantize_static", msgspec.structs.asdict(self))
        return replace(state, encodings=encodings, history=(*state.history, entry))


def calibration_inputs(task: Task, samples: int, batch_size: int) -> Iterator[tuple[Tensor, ...]]:
    """Yield the first ``samples`` calibration inputs, float32 [B, ...] each."""
    full, rest = divmod(samples, batch_size)
    batches = task.batches("calibration", batch_size)
    for index, batch in enumerate(itertools.islice(batches, full + bool(rest))):
        count = rest if index == full else batch_size
        yield tuple(torch.tensor(x[:count]) for x in batch.inputs)
