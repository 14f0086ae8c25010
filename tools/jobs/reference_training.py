"""Train a reference model and write its weights, its record and its learning curve."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from edgedl.compress.device import CPU, on_device
from edgedl.compress.graph.run import count_macs, count_parameters
from edgedl.compress.subject.score import score_module
from edgedl.compress.training import (
    EpochRecord,
    Processes,
    TrainingBatches,
    TrainingSettings,
    train,
)
from edgedl.compress.training.mixed_precision import has_bfloat16, no_bfloat16
from edgedl.models.data.dataset import CorpusDataset, SequenceDataset, TextDataset
from edgedl.models.data.datasets import (
    find_dataset,
    load_corpus,
    load_recordings,
    load_split,
)
from edgedl.models.reference.corpus_batches import CorpusBatches
from edgedl.models.reference.image_batches import Augmentation, ImageBatches
from edgedl.models.reference.plan import TrainingPlan
from edgedl.models.reference.pretrained import TrainingRecord, build, load_pretrained
from edgedl.models.reference.published import PublishedWeights
from edgedl.models.reference.recording_batches import RecordingBatches
from edgedl.models.reference.table import ReferenceModel
from edgedl.models.reference.tasks import make_task
from edgedl.models.reference.text_batches import TextBatches, training_tokens
from edgedl.runtime.bundle.files import atomic_write
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.progress import Progress
from edgedl.tools.jobs.pretraining import Pretraining
from edgedl.tools.report.curve import draw_learning_curve

CHECKPOINT = "checkpoint.pt"
MAX_FLOAT32_BYTES = 4_000_000

# Hears epoch and step (from 1), the steps of an epoch, and the loss.
OnStep = Callable[[int, int, int, float], None]


class ReferenceTraining:
    """One training run of a reference model in a folder of its own."""

    def __init__(
        self,
        model: ReferenceModel,
        folder: Path,
        seed: int,
        threads: int,
        processes: Processes,
        device: torch.device = CPU,
    ) -> None:
        """Build the network with fresh weights and load the training split.

        Of several processes each has a training of its own; ``threads`` are those of one.

        Raises:
            BadInputError: several processes shall train elsewhere than on the CPU.
        """
        if processes.count > 1 and device.type != "cpu":
            raise BadInputError(
                f"several processes train on the CPU: leave --device {device} out, or train in one"
            )
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        self._model, self._folder, self._seed = model, folder, seed
        self._module = build(model)
        self._processes = processes
        self._device = device
        self.batches = training_batches(model)

    def run(self, on_step: OnStep, progress: Progress) -> TrainingRecord | None:
        """Train, or go on where the folder's checkpoint ends; write the results to the folder.

        Of several processes one writes, and returns what it wrote.

        Args:
            on_step: called after every step with epoch, step, steps of an epoch, and loss.
            progress: says the epochs of pre-training, and where mixed precision is not used.

        Raises:
            TrainingDivergedError: the loss is not finite any more.
            BadInputError: the checkpoint is damaged or belongs to other settings.
        """
        plan = plan_of(self._model)
        checkpoint = self._folder / CHECKPOINT
        if plan.mixed_precision and not has_bfloat16(self._device):
            progress.note(no_bfloat16(self._device))
        settings = TrainingSettings(
            epochs=plan.epochs,
            batch_size=plan.batch_size,
            max_learning_rate=plan.max_learning_rate,
            weight_decay=plan.weight_decay,
            label_smoothing=plan.label_smoothing,
            seed=self._seed,
            optimizer=plan.optimizer,
            mixed_precision=plan.mixed_precision,
            max_gradient_norm=plan.max_gradient_norm,
        )

        def loss(outputs: Tensor, labels: Tensor) -> Tensor:
            # Classes are the last axis: [N, K] of pictures, [N, T, K] of text.
            rows = outputs.flatten(0, -2)
            return F.cross_entropy(rows, labels.flatten(), label_smoothing=plan.label_smoothing)

        def hook(epoch: int, step: int, value: float) -> None:
            on_step(epoch, step, len(self.batches), value)

        processes = self._processes
        with on_device(self._device, self._module):
            seconds = 0.0
            if plan.pretraining_epochs and not checkpoint.is_file():
                seconds = self._pretrain(settings, progress)
            records = train(
                self._module, self.batches, loss, settings, checkpoint, hook, processes=processes
            )
        processes.end()
        return self._save(records, seconds) if processes.writes else None

    def _pretrain(self, settings: TrainingSettings, progress: Progress) -> float:
        """Train without labels first; return the seconds that it took."""
        epochs = plan_of(self._model).pretraining_epochs
        return Pretraining(
            find_dataset(self._model.dataset),
            replace(settings, epochs=epochs, label_smoothing=0.0, mixed_precision=False),
            self._folder,
            self._processes,
            progress,
        ).run(self._module)

    def _save(self, epochs: list[EpochRecord], before: float) -> TrainingRecord:
        """Write curve, weights and record; the record is of the weights as they are stored.

        ``before`` are the seconds of the training before the epochs.
        """
        model, module = self._model, self._module
        module.load_state_dict(storable(module))
        weights = save({k: v.contiguous() for k, v in storable(module).items()})
        size = find_dataset(model.dataset).sizes["train"]
        count = self._processes.count
        edgedl = f"torchrun --nproc-per-node {count} -m edgedl" if count > 1 else "edgedl"
        device = "" if self._device.type == "cpu" else f" --device {self._device}"
        record = make_record(
            model,
            module,
            trained_on=f"{model.dataset} train, {size} samples",
            command=f"{edgedl} train {model.name} --seed {self._seed}{device}",
            seed=self._seed,
            epochs=plan_of(model).epochs,
            weights_sha256=hashlib.sha256(weights).hexdigest(),
            training_minutes=round((before + sum(e.seconds for e in epochs)) / 60, 1),
        )
        _write(self._folder / "learning_curve.png", draw_learning_curve(model.name, epochs))
        _write(self._folder / f"{model.name}.safetensors", weights)
        write_record(record, self._folder)
        return record


def score_published(model: ReferenceModel, weights: PublishedWeights) -> TrainingRecord:
    """Return the record of weights that others trained, scored here."""
    return make_record(
        model,
        load_pretrained(model),
        trained_on="ImageNet by the publisher; scored on other photographs",
        command=f"none: published in the package {weights.package}",
        seed=0,
        epochs=0,
        weights_sha256=weights.sha256,
        training_minutes=None,
    )


def make_record(
    model: ReferenceModel,
    module: nn.Module,
    *,
    trained_on: str,
    command: str,
    seed: int,
    epochs: int,
    weights_sha256: str,
    training_minutes: float | None,
) -> TrainingRecord:
    """Score a trained network on its whole test split and describe it."""
    dataset, task = find_dataset(model.dataset), make_task(model.dataset)
    scores = score_module(module, task)
    return TrainingRecord(
        name=model.name,
        dataset=f"{trained_on}; {dataset.licence}",
        command=command,
        seed=seed,
        epochs=epochs,
        test_score_percent=round(100 * float(scores.mean()), 4),
        test_samples=len(scores),
        parameters=count_parameters(module),
        macs=count_macs(module, tuple(torch.tensor(x) for x in dataset.example_inputs())),
        torch=str(torch.__version__),
        weights_sha256=weights_sha256,
        training_minutes=training_minutes,
        metric=task.metric,
    )


def write_record(record: TrainingRecord, folder: Path) -> None:
    """Write a record as NAME.json."""
    text = msgspec.json.format(msgspec.json.encode(record), indent=2)
    _write(folder / f"{record.name}.json", text + b"\n")


def plan_of(model: ReferenceModel) -> TrainingPlan:
    """Return how a model is trained.

    Raises:
        BadInputError: it is not: its weights are published.
    """
    if model.plan is None:
        raise BadInputError(f"{model.name} has published weights, there is nothing to train")
    return model.plan


def with_epochs(model: ReferenceModel, epochs: int | None) -> ReferenceModel:
    """Return the model with another number of epochs in its plan; None leaves the plan's."""
    if epochs is None:
        return model
    return replace(model, plan=replace(plan_of(model), epochs=epochs))


def training_batches(model: ReferenceModel) -> TrainingBatches[Tensor]:
    """Return the augmented training batches of a model's plan."""
    plan, dataset = plan_of(model), find_dataset(model.dataset)
    if isinstance(dataset, SequenceDataset):
        recordings = load_recordings(dataset.name, "train")
        return RecordingBatches(recordings, dataset.cut, plan.batch_size, plan.rotation)
    if isinstance(dataset, CorpusDataset):
        texts = load_corpus(dataset.name, "train")
        return CorpusBatches(texts, dataset.context, plan.batch_size)
    if isinstance(dataset, TextDataset):
        return TextBatches(*training_tokens(dataset), plan.batch_size, plan.hidden_words)
    pictures = load_split(dataset.name, "train")
    return ImageBatches(pictures, plan.batch_size, Augmentation.of(plan))


def storable(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights as they are stored: matrices in float16 if float32 takes over 4 MB.

    Vectors (biases, batch norm) stay float32: running variances may need its range.
    """
    state: dict[str, Tensor] = module.state_dict()
    if sum(v.numel() * v.element_size() for v in state.values()) <= MAX_FLOAT32_BYTES:
        return state
    half = {k for k, v in state.items() if v.ndim >= 2 and v.dtype == torch.float32}
    return {k: v.half() if k in half else v for k, v in state.items()}


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as out:
        out.write(content)
