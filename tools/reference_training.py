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

from edgedl.compress.evaluate import count_macs, count_parameters, score_module
from edgedl.compress.training import EpochRecord, TrainingBatches, TrainingSettings, train
from edgedl.models.data.dataset import SequenceDataset
from edgedl.models.data.datasets import find_dataset, load_recordings, load_split
from edgedl.models.dbn import DeepBeliefNetwork, pretrain
from edgedl.models.image_batches import ImageBatches
from edgedl.models.pretrained import TrainingRecord, build
from edgedl.models.recording_batches import RecordingBatches
from edgedl.models.reference import ReferenceModel
from edgedl.models.tasks import make_task
from edgedl.runtime.files import atomic_write

CHECKPOINT = "checkpoint.pt"
MAX_FLOAT32_BYTES = 4_000_000

# Hears epoch and step (from 1), the steps of an epoch, and the loss.
Progress = Callable[[int, int, int, float], None]


class ReferenceTraining:
    """One training run of a reference model in a folder of its own."""

    def __init__(self, model: ReferenceModel, folder: Path, seed: int, threads: int) -> None:
        """Build the network with fresh weights and load the training split."""
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        self._model, self._folder, self._seed = model, folder, seed
        self._module = build(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.batches = training_batches(model)

    def run(self, progress: Progress) -> TrainingRecord:
        """Train, or go on where the folder's checkpoint ends; write the results to the folder.

        Raises:
            TrainingDivergedError: the loss is not finite any more.
            BadInputError: the checkpoint is damaged or belongs to other settings.
        """
        plan = self._model.plan
        checkpoint = self._folder / CHECKPOINT
        if not checkpoint.is_file():
            self._pretrain()
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
            return F.cross_entropy(outputs, labels, label_smoothing=plan.label_smoothing)

        def on_step(epoch: int, step: int, value: float) -> None:
            progress(epoch, step, len(self.batches), value)

        records = train(self._module, self.batches, loss, settings, checkpoint, on_step)
        return self._save(records)

    def _pretrain(self) -> None:
        if isinstance(self._module, DeepBeliefNetwork):
            images = load_split(self._model.dataset, "train").images
            pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 255
            generator = torch.Generator().manual_seed(self._seed)
            pretrain(self._module, pixels, self._model.plan.pretraining_epochs, generator)

    def _save(self, epochs: list[EpochRecord]) -> TrainingRecord:
        """Write curve, weights and record; the record is of the weights as they are stored."""
        from edgedl.tools.report.curve import draw_learning_curve

        model, module = self._model, self._module
        module.load_state_dict(storable(module))
        weights = save({k: v.contiguous() for k, v in storable(module).items()})
        dataset = find_dataset(model.dataset)
        scores = score_module(module, make_task(model.dataset))
        record = TrainingRecord(
            name=model.name,
            dataset=f"{model.dataset} train, {dataset.sizes['train']} samples; {dataset.licence}",
            command=f"edgedl train {model.name} --seed {self._seed}",
            seed=self._seed,
            epochs=model.plan.epochs,
            test_top1_percent=round(100 * float(scores.mean()), 4),
            test_samples=len(scores),
            parameters=count_parameters(module),
            macs=count_macs(module, (torch.zeros(1, *dataset.input_shape),)),
            torch=str(torch.__version__),
            weights_sha256=hashlib.sha256(weights).hexdigest(),
            training_minutes=round(sum(e.seconds for e in epochs) / 60, 1),
        )
        _write(self._folder / "learning_curve.png", draw_learning_curve(model.name, epochs))
        _write(self._folder / f"{model.name}.safetensors", weights)
        text = msgspec.json.format(msgspec.json.encode(record), indent=2)
        _write(self._folder / f"{model.name}.json", text + b"\n")
        return record


def with_epochs(model: ReferenceModel, epochs: int | None) -> ReferenceModel:
    """Return the model with another number of epochs in its plan; None leaves the plan's."""
    return model if epochs is None else replace(model, plan=replace(model.plan, epochs=epochs))


def training_batches(model: ReferenceModel) -> TrainingBatches:
    """Return the augmented training batches of a model's plan."""
    plan, dataset = model.plan, find_dataset(model.dataset)
    if isinstance(dataset, SequenceDataset):
        recordings = load_recordings(dataset.name, "train")
        return RecordingBatches(recordings, dataset.cut, plan.batch_size, plan.rotation)
    pictures = load_split(dataset.name, "train")
    return ImageBatches(pictures, plan.batch_size, plan.shift, plan.flip)


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
