"""The stage that trains a quantized network: weights, biases, and the table's steps."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec
import torch
from msgspec import Meta
from torch import Tensor

from edgedl.compress.device import on_device, to_device
from edgedl.compress.encodings.encodings import QuantizedPrecision
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.estimate import Work
from edgedl.compress.quantize.qat.learned_ranges import Learn
from edgedl.compress.quantize.qat.trainable import TrainableNetwork
from edgedl.compress.quantize.refinement import Refinement
from edgedl.compress.stage import Found
from edgedl.compress.state import ModelState
from edgedl.compress.subject.subject import Subject
from edgedl.compress.training import TrainingSettings
from edgedl.compress.training.check_training import check_training
from edgedl.compress.training.set_aside import train_and_compare
from edgedl.compress.training.subject_loss import SubjectLoss
from edgedl.compress.training.task_batches import TaskBatches, batches_of_a_round
from edgedl.compress.training.training_data import choose_split, trained_on, training_machine
from edgedl.compress.training.zeros import hold_zeros, sparse_paths
from edgedl.runtime.task.task import Task, training_split


class TrainQuantized(Refinement, frozen=True, tag="train_quantized"):
    """Quantization-aware training, straight through the rounding, with learned step sizes.

    Adam with a cosine schedule to zero, on the split "train" of the task, or on "calibration"
    where the task has no other; the history says which. The test split is never read. The network
    that the stage ends with is the best of all epochs and of the start, by the loss on samples
    that are set aside.

    Source: Esser et al., "Learned step size quantization", 2020; Bhalgat et al., "LSQ+", 2020
    (offsets); Hinton et al., "Distilling the knowledge in a neural network", 2015.

    Attributes:
        epochs: rounds; after each, a checkpoint is written where there is a workspace.
        samples: training samples of a round, drawn anew for each; they are held in memory.
        batch_size: samples per step.
        learn: "nothing" leaves the table as it is, "scales" trains all steps,
            "scales_and_offsets" also the zero points of tensors with both signs.
        distil: weight of the float network's answers in the loss, 0 to 1; labels have the rest.
        temperature: softens the answers.
        learning_rate: of weights and biases, at the start.
        scale_learning_rate: of the logarithms of steps and of offsets, at the start.
        seed: fixes the order of the samples.
        accumulate: batches per step of the optimizer, for batches larger than memory allows.
        ema_decay: end with weights and steps averaged over the last 1 / (1 - ema_decay) steps of
            the optimizer; null keeps the last ones.
        patience: stop after so many epochs without a smaller loss on the samples that are set
            aside (on all others where the split is too small for that). null trains all epochs.
    """

    refines: ClassVar[tuple[QuantizedPrecision, ...]] = ("int8",)

    epochs: Annotated[int, Meta(ge=1)] = 3
    samples: Annotated[int, Meta(ge=1)] = 6400
    batch_size: Annotated[int, Meta(ge=1)] = 64
    learn: Learn = "scales"
    distil: Annotated[float, Meta(ge=0, le=1)] = 0.0
    temperature: Annotated[float, Meta(gt=0)] = 2.0
    learning_rate: Annotated[float, Meta(gt=0)] = 2e-5
    scale_learning_rate: Annotated[float, Meta(gt=0)] = 1e-3
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    accumulate: Annotated[int, Meta(ge=1)] = 1
    ema_decay: Annotated[float, Meta(gt=0, lt=1)] | None = None
    patience: Annotated[int, Meta(ge=1)] | None = None

    def splits(self, task: Task) -> frozenset[str]:
        """Return what it reads: the data that it trains on."""
        return super().splits(task) | {training_split(task)}

    def machine(self, device: torch.device) -> str | None:
        """Return the device."""
        return training_machine(device, mixed_precision=False)

    def check_subject(self, subject: Subject) -> None:
        """Try the loss of the labels.

        Raises:
            BadInputError: they cannot be trained on.
        """
        check_training(subject, self.distil)

    def work(self, state: ModelState) -> Work:
        """Count batches."""
        batches = batches_of_a_round(state.subject.task, self.samples, self.batch_size)
        return Work(
            self.epochs * batches,
            lambda n: msgspec.structs.replace(self, epochs=1, samples=n * self.batch_size),
        )

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        """Train a copy of the quantized network; the float one, the teacher, stays.

        Raises:
            BadInputError: no stage before this one has quantized the network, there is no data,
                or a checkpoint is damaged.
            TrainingDivergedError: the loss is not finite any more.
        """
        start = self.network(state)
        network = TrainableNetwork(start, self.learn)
        subject, task = state.subject, state.subject.task
        aim = SubjectLoss.chosen(state, "train_quantized", self.distil)
        loss = aim.function(subject, self.temperature)
        split = choose_split(state, "train_quantized")
        device = state.subject.device

        def teacher(*inputs: Tensor) -> Any:
            return state.graph(*to_device(inputs, device))

        answers = teacher if aim.distil > 0 else None
        batches = TaskBatches(
            task,
            split,
            self.samples,
            self.batch_size,
            answers,
            with_labels=aim.reads_labels,
        )
        checkpoint = _checkpoint(state.workspace, start)
        with on_device(device, network, start.graph, state.graph):
            # Only weights: a bias that happens to be zero may move.
            kept = bool(sparse_paths(state.history))
            records, gain = train_and_compare(
                network,
                batches,
                loss,
                self._training(),
                checkpoint,
                on_step=hold_zeros(t for t in network.tensors if kept and t.ndim > 1),
                progress=state.progress.of(self.name),
            )
        found: Found = {
            "split": split,
            "trained_epochs": len(records),
            **gain.recorded,
            **aim.recorded(self.distil),
            **trained_on(device),
        }
        if gain.is_none:
            return state, found
        return replace(state, quantized=network.quantized()), found

    def _training(self) -> TrainingSettings:
        return TrainingSettings(
            epochs=self.epochs,
            batch_size=self.batch_size,
            max_learning_rate=self.learning_rate,
            weight_decay=0.0,
            seed=self.seed,
            optimizer="adamw",
            schedule="cosine",
            other_peaks={"ranges": self.scale_learning_rate},
            accumulate=self.accumulate,
            ema_decay=self.ema_decay,
            patience=self.patience,
        )


def _checkpoint(workspace: Path | None, start: QuantizedNetwork) -> Path | None:
    """Return where a training run is kept; another network to start from has another file."""
    if workspace is None:
        return None
    digest = hashlib.sha256(start.encodings.to_json())
    for name, tensor in start.graph.state_dict().items():
        digest.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    return workspace / f"train_quantized-{digest.hexdigest()[:12]}.pt"
