"""The stage that trains the float network: after pruning, from labels, its teacher, or both."""

import hashlib
import operator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import torch
from msgspec import Meta
from torch import Tensor, nn

from edgedl.compress.device import on_device, to_device
from edgedl.compress.digests import tensors_digest
from edgedl.compress.distill.answer_file import RememberingTeacher
from edgedl.compress.distill.feature_matching import FeatureLoss, match_features
from edgedl.compress.distill.teachers import Ensemble, one_teacher
from edgedl.compress.estimate import Work
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.stage import Found, Stage
from edgedl.compress.state import ModelState, Phase
from edgedl.compress.subject.layout import ChannelsLast
from edgedl.compress.subject.outputs import as_tuple
from edgedl.compress.subject.subject import Subject
from edgedl.compress.training import TrainingSettings
from edgedl.compress.training.check_training import check_training
from edgedl.compress.training.losses import is_classification
from edgedl.compress.training.mixed_precision import InBfloat16, has_bfloat16
from edgedl.compress.training.set_aside import train_and_compare
from edgedl.compress.training.subject_loss import SubjectLoss
from edgedl.compress.training.task_batches import TaskBatches, Teacher, batches_of_a_round
from edgedl.compress.training.training_data import choose_split, trained_on, training_machine
from edgedl.compress.training.zeros import hold_zeros, sparse_paths
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.task import Task, training_split


class FineTune(Stage, frozen=True, tag="fine_tune"):
    """Train the float network, with a teacher: the subject's, or what the recipe began with.

    On the split "train" of the task, or on "calibration" where the task has no other, which it
    says; changed at random as the subject's ``augment`` does. The test split is
    never read. Weights that a stage has set to zero stay zero. The network that the stage ends with
    is the best of all epochs and of the start, by the loss on samples that are set aside.

    Source: Hinton et al., "Distilling the knowledge in a neural network", 2015; the features'
    losses in ``compress/training/distances.py``.

    Attributes:
        epochs: rounds; after each, a checkpoint is written where there is a workspace.
        samples: training samples of a round, drawn anew for each; they are held in memory.
        batch_size: samples per step.
        distil: weight of the teacher's answers in the loss, 0 to 1; labels have the rest.
        temperature: softens the answers.
        optimizer: "sgd" with Nesterov momentum, or "adamw".
        learning_rate: peak of the schedule.
        weight_decay: as the optimizer takes it.
        mixed_precision: compute in bfloat16 where that is safe and the device has it, teachers
            included.
        seed: fixes the order of the samples and their changes, and the projections' beginning.
        features: modules, such as "stack2", whose values are to follow the teacher's; both
            networks have them by these names.
        feature_loss: "projection" compares values, through a learned linear map where the
            teacher has more channels or fewer; "attention" where maps are large; "relational"
            how the samples of a batch lie towards each other. "none" without ``features``.
        feature_weight: of that loss, summed over ``features``, beside the others.
        answer_cache_bytes: how much of what the teacher says is kept in the workspace, so that it
            is asked about every sample once; 0 keeps nothing. For a subject that augments it needs
            ``views``: changed at random, no sample comes twice.
        views: in how many ways the subject's ``augment`` changes every sample; a round shows all
            samples in one of them. null changes them otherwise every time. It says nothing for a
            subject that does not augment.
        schedule: "one_cycle" reaches the peak after 30 % of the steps; "cosine" starts there.
        accumulate: batches per step of the optimizer, for batches larger than memory allows.
        ema_decay: end with averaged weights, reaching back 1 / (1 - ema_decay) steps; 0.99 is a
            beginning for short runs. null keeps the last weights.
        patience: stop after so many epochs without a smaller loss on the samples that are set
            aside (on all others where the split is too small for that). null trains all epochs.
    """

    works_on: ClassVar[Phase] = Phase.TRAINED
    yields: ClassVar[Phase] = Phase.TRAINED

    epochs: Annotated[int, Meta(ge=1)] = 10
    samples: Annotated[int, Meta(ge=1)] = 50_000
    batch_size: Annotated[int, Meta(ge=1)] = 128
    distil: Annotated[float, Meta(ge=0, le=1)] = 0.9
    temperature: Annotated[float, Meta(gt=0)] = 4.0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Annotated[float, Meta(gt=0)] = 0.05
    weight_decay: Annotated[float, Meta(ge=0)] = 5e-4
    mixed_precision: bool = False
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    features: tuple[str, ...] = ()
    feature_loss: FeatureLoss = "none"
    feature_weight: Annotated[float, Meta(gt=0)] = 1.0
    answer_cache_bytes: Annotated[int, Meta(ge=0)] = 0
    views: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    schedule: Literal["one_cycle", "cosine"] = "one_cycle"
    accumulate: Annotated[int, Meta(ge=1)] = 1
    ema_decay: Annotated[float, Meta(gt=0, lt=1)] | None = None
    patience: Annotated[int, Meta(ge=1)] | None = None

    def __post_init__(self) -> None:
        """Refuse features without a loss, and a loss without features."""
        super().__post_init__()
        if bool(self.features) != (self.feature_loss != "none"):
            raise BadInputError(
                "features and feature_loss go together: name modules in features, and set "
                "feature_loss to 'projection', 'attention' or 'relational'"
            )

    @property
    def learns_from_teachers(self) -> bool:
        """Whether answers or features of a teacher are in the loss."""
        return self.distil > 0 or bool(self.features)

    def check_subject(self, subject: Subject) -> None:
        """Try the loss of the labels.

        Raises:
            BadInputError: they cannot be trained on.
        """
        check_training(subject, self.distil)

    def splits(self, task: Task) -> frozenset[str]:
        """Return what it reads: the data that it trains on."""
        return super().splits(task) | {training_split(task)}

    def machine(self, device: torch.device) -> str | None:
        """Return the device, and what mixed precision is there."""
        return training_machine(device, self.mixed_precision)

    def work(self, state: ModelState) -> Work:
        """Count batches."""
        batches = batches_of_a_round(state.subject.task, self.samples, self.batch_size)
        return Work(
            self.epochs * batches,
            lambda n: msgspec.structs.replace(self, epochs=1, samples=n * self.batch_size),
        )

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        """Train a copy of the network.

        Raises:
            BadInputError: there is no data, a teacher or its features do not fit, or a checkpoint
                is damaged.
            TrainingDivergedError: the loss is not finite any more.
        """
        network = TracedNetwork(state.trainable_graph())
        subject, task = state.subject, state.subject.task
        parent = state.parent or subject.module
        aim = SubjectLoss.chosen(state, "fine_tune", self.distil)
        teacher = self._teacher(subject, parent, network, aim)
        student: nn.Module = network
        distance = aim.function(subject, self.temperature)
        checkpoint = self._checkpoint(state.workspace, network, teacher)
        if self.feature_loss != "none" and teacher is not None:
            inputs, kind = subject.example_inputs(), self.feature_loss
            matching = match_features(network, teacher, inputs, self.features, kind, self.seed)
            student, teacher = matching.student, matching.teacher
            distance = matching.added_to(distance, self.feature_weight)
        split = choose_split(state, "fine_tune")
        if self.mixed_precision and has_bfloat16(subject.device) and teacher is not None:
            teacher = InBfloat16(teacher)
        modules = (student, network) if teacher is None else (student, network, teacher)
        with on_device(subject.device, *modules):
            answers = self._answers(state, teacher)
            batches = TaskBatches(
                task,
                split,
                self.samples,
                self.batch_size,
                answers,
                subject.augment,
                self.views,
                with_labels=aim.reads_labels,
            )
            paths = sparse_paths(state.history)
            records, gain = train_and_compare(
                student,
                batches,
                lambda y, t: distance(as_tuple(y), t),
                self._training(),
                checkpoint,
                on_step=hold_zeros(operator.attrgetter(path)(network.graph) for path in paths),
                progress=state.progress.of(self.name),
            )
        return state if gain.is_none else state.with_network(network), {
            "split": split,
            "teachers": len(subject.teachers),
            "last_loss": records[-1].mean_loss,
            "trained_epochs": len(records),
            **gain.recorded,
            **aim.recorded(self.distil),
            **trained_on(subject.device),
        }

    def _teacher(
        self, subject: Subject, parent: nn.Module, network: TracedNetwork, aim: SubjectLoss
    ) -> nn.Module | None:
        """Return who teaches: None where only labels count."""
        if not self.features and not aim.distil:
            return None
        if not subject.teachers:
            return parent.eval()
        temperature = self.temperature if is_classification(subject.task) else None
        teacher = one_teacher(subject.teachers, network, subject.example_inputs(), temperature)
        if self.features and isinstance(teacher, Ensemble):
            raise BadInputError(
                f"the features of {len(subject.teachers)} teachers cannot be averaged: "
                "remove features, or give the subject one teacher"
            )
        return teacher

    def _answers(self, state: ModelState, teacher: nn.Module | None) -> Teacher | None:
        """Return who answers: the teacher, or what it said before."""
        if teacher is None:
            return None
        lay_out = ChannelsLast(teacher, weights=False).lay_out

        def answer(*inputs: Tensor) -> Any:
            return teacher(*lay_out(to_device(inputs, state.subject.device)))

        if self.answer_cache_bytes == 0:
            return answer
        if state.subject.augment is not None and self.views is None:
            raise BadInputError(
                "answers to samples that are changed at random cannot be kept: "
                "set views to the number of ways to change each, or answer_cache_bytes to 0"
            )
        if state.workspace is None:
            return answer
        # An ensemble's answers depend on the temperature.
        settings = msgspec.json.encode((self.features, self.temperature))
        path = state.workspace / f"answers-{_digest(settings, teacher)}.bin"
        examples = state.subject.example_inputs()
        return RememberingTeacher(answer, examples, path, self.answer_cache_bytes)

    def _training(self) -> TrainingSettings:
        return TrainingSettings(
            epochs=self.epochs,
            batch_size=self.batch_size,
            max_learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            seed=self.seed,
            optimizer=self.optimizer,
            mixed_precision=self.mixed_precision,
            schedule=self.schedule,
            accumulate=self.accumulate,
            ema_decay=self.ema_decay,
            patience=self.patience,
        )

    def _checkpoint(
        self, workspace: Path | None, network: TracedNetwork, teacher: nn.Module | None
    ) -> Path | None:
        """Return where the run is kept; another network, teacher or loss has another file."""
        if workspace is None:
            return None
        modules = (network,) if teacher is None else (network, teacher)
        return workspace / f"fine_tune-{_digest(msgspec.json.encode(self), *modules)}.pt"


def _digest(settings: bytes, *modules: nn.Module) -> str:
    digest = hashlib.sha256(settings)
    for module in modules:
        digest.update(tensors_digest(module.state_dict()).encode())
    return digest.hexdigest()[:12]
