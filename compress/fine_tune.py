"""The stage that trains the float network: after pruning, from labels, its teacher, or both."""

import hashlib
import operator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from torch import Tensor

from edgedl.compress.evaluate import as_tuple
from edgedl.compress.graph.trace import trace
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.losses import fine_tuning_loss
from edgedl.compress.sparsify.zeros import hold_zeros, sparse_paths
from edgedl.compress.stage import ModelState, trainable_graph
from edgedl.compress.task_batches import Targets, TaskBatches
from edgedl.compress.training import TrainingSettings, train
from edgedl.runtime.manifest import HistoryEntry
from edgedl.runtime.task import training_split


class FineTune(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag_field="stage",
    tag="fine_tune",
):
    """Train the float network, with the network that the recipe began with as its teacher.

    On the split "train" of the task, or on "calibration" where the task has no other, changed at
    random as the subject's ``augment`` does. The test split is never read. Weights that a stage has
    set to zero stay zero.

    Source: Hinton et al., "Distilling the knowledge in a neural network", 2015.

    Attributes:
        epochs: rounds; after each, a checkpoint is written where there is a workspace.
        samples: training samples of a round, drawn anew for each; they are held in memory.
        batch_size: samples per step.
        distil: weight of the teacher's answers in the loss, 0 to 1; labels have the rest.
        temperature: softens the answers.
        optimizer: "sgd" with Nesterov momentum, or "adamw".
        learning_rate: peak of a one-cycle schedule.
        weight_decay: as the optimizer takes it.
        mixed_precision: compute in bfloat16 where that is safe.
        seed: fixes the order of the samples and their changes.
    """

    epochs: Annotated[int, Meta(ge=1)] = 10
    samples: Annotated[int, Meta(ge=1)] = 50_000
    batch_size: Annotated[int, Meta(ge=1)] = 128
    distil: Annotated[float, Meta(ge=0, le=1)] = 0.9
    temperature: Annotated[float, Meta(gt=0)] = 4.0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Annotated[float, Meta(gt=0)] = 0.05
    weight_decay: Annotated[float, Meta(ge=0)] = 5e-4
    mixed_precision: bool = False
    seed: int = 0

    def apply(self, state: ModelState) -> ModelState:
        """Train a copy of the network.

        Raises:
            BadInputError: the network is quantized already, there is no data, the labels have no
                known loss, or a checkpoint is damaged.
            TrainingDivergedError: the loss is not finite any more.
        """
        network = TracedNetwork(trainable_graph(state, "fine_tune"))
        subject, task = state.subject, state.subject.task
        parent = state.parent or subject.module
        distance = fine_tuning_loss(task, self.distil, self.temperature)

        def loss(outputs: Tensor | tuple[Tensor, ...], targets: Targets) -> Tensor:
            return distance(as_tuple(outputs), targets)

        split = training_split(task)
        teacher = parent.eval() if self.distil > 0 else None
        batches = TaskBatches(task, split, self.samples, self.batch_size, teacher, subject.augment)
        checkpoint = self._checkpoint(state.workspace, network)
        sparse = [operator.attrgetter(path)(network.graph) for path in sparse_paths(state.history)]
        held = hold_zeros(sparse)
        records = train(network, batches, loss, self._training(), checkpoint, on_step=held)
        settings = {
            **msgspec.structs.asdict(self),
            "split": split,
            "last_loss": records[-1].mean_loss,
        }
        return replace(
            state,
            subject=replace(subject, module=network),
            graph=trace(network, subject.example_inputs(), subject.free_axes),
            parent=parent,
            history=(*state.history, HistoryEntry("fine_tune", settings)),
        )

    def _training(self) -> TrainingSettings:
        return TrainingSettings(
            epochs=self.epochs,
            batch_size=self.batch_size,
            max_learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            seed=self.seed,
            optimizer=self.optimizer,
            mixed_precision=self.mixed_precision,
        )

    def _checkpoint(self, workspace: Path | None, network: TracedNetwork) -> Path | None:
        """Return where the run is kept; another network or loss has another file."""
        if workspace is None:
            return None
        digest = hashlib.sha256(msgspec.json.encode(self))
        for name, tensor in network.state_dict().items():
            digest.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
        return workspace / f"fine_tune-{digest.hexdigest()[:12]}.pt"
