"""The reference models: architecture, data, how each was trained, and its shipped weights."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

import msgspec

from edgedl.models.data.datasets import find_dataset, load_split
from edgedl.runtime.errors import BadInputError, IntegrityError
from edgedl.runtime.preprocess import ImagePreprocessing
from edgedl.runtime.task import ArrayTask, Samples

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class TrainingPlan:
    """How a reference model is trained; see ``compress.training.TrainingSettings`` for terms.

    Attributes:
        epochs, batch_size, max_learning_rate, weight_decay, label_smoothing: the schedule.
        shift: largest random shift in pixels; flip: mirror left to right half of the time.
    """

    epochs: int
    batch_size: int
    max_learning_rate: float
    weight_decay: float
    label_smoothing: float
    shift: int
    flip: bool


@dataclass(frozen=True)
class ReferenceModel:
    """An architecture trained on a data set.

    Attributes:
        name: architecture and data set, the name on the command line.
        architecture: "lenet5" or "resnet8".
        dataset: name of the data set.
        paper: where the architecture is described.
        plan: how it is trained.
    """

    name: str
    architecture: str
    dataset: str
    paper: str
    plan: TrainingPlan


class TrainingRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known about shipped weights.

    Attributes:
        name: reference model.
        dataset: data set and split trained on, with its licence.
        command: the command that trained it.
        seed: its seed; epochs: its epochs.
        test_top1_percent: top-1 on the whole test split, in percent.
        test_samples: size of that split.
        parameters: number of trained values.
        macs: multiply-accumulates of one inference.
        torch: version that trained it.
        weights_sha256: checksum of the safetensors file.
    """

    name: str
    dataset: str
    command: str
    seed: int
    epochs: int
    test_top1_percent: float
    test_samples: int
    parameters: int
    macs: int
    torch: str
    weights_sha256: str


_RESNET = "He et al. 2016 (arXiv:1512.03385); MLPerf Tiny, Banbury et al. 2021 (arXiv:2106.07597)"
_LENET = "LeCun et al. 1998, 'Gradient-based learning applied to document recognition', II.B"

REFERENCE_MODELS = {
    model.name: model
    for model in (
        ReferenceModel(
            "resnet8-cifar10", "resnet8", "cifar10", _RESNET,
            TrainingPlan(60, 128, 0.2, 5e-4, 0.05, shift=2, flip=True),
        ),
        ReferenceModel(
            "resnet8-fashion_mnist", "resnet8", "fashion_mnist", _RESNET,
            TrainingPlan(8, 128, 0.2, 5e-4, 0.05, shift=2, flip=True),
        ),
        ReferenceModel(
            "lenet5-fashion_mnist", "lenet5", "fashion_mnist", _LENET,
            TrainingPlan(12, 128, 0.1, 5e-4, 0.0, shift=1, flip=True),
        ),
    )
}  # fmt: skip


def find_model(name: str) -> ReferenceModel:
    """Return the reference model of this name.

    Raises:
        BadInputError: when there is none; the message lists those there are.
    """
    if name not in REFERENCE_MODELS:
        raise BadInputError(
            f"unknown model '{name}': there are {', '.join(REFERENCE_MODELS)}, "
            "or give your own as file.py:function"
        )
    return REFERENCE_MODELS[name]


def build(model: ReferenceModel) -> "nn.Module":
    """Return the architecture with fresh random weights."""
    channels = find_dataset(model.dataset).image_shape[2]
    if model.architecture == "lenet5":
        from edgedl.models.lenet import LeNet5

        return LeNet5(channels)
    from edgedl.models.resnet import ResNet8

    return ResNet8(channels)


def load_record(model: ReferenceModel) -> TrainingRecord:
    """Return the record of the shipped weights.

    Raises:
        BadInputError: when no weights ship for this model.
    """
    path = files("edgedl.models.weights") / f"{model.name}.json"
    if not path.is_file():
        raise BadInputError(
            f"no weights ship for {model.name}: train them with 'edgedl train {model.name}'"
        )
    return msgspec.convert(json.loads(path.read_text()), TrainingRecord)


def load_pretrained(model: ReferenceModel) -> "nn.Module":
    """Return the architecture with its shipped weights, in evaluation mode.

    Raises:
        IntegrityError: the weight file is not the one its record describes.
    """
    import hashlib

    from safetensors.torch import load

    record = load_record(model)
    with as_file(files("edgedl.models.weights") / f"{model.name}.safetensors") as path:
        content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != record.weights_sha256:
        raise IntegrityError(f"the shipped weights of {model.name} are damaged: reinstall edgedl")
    module = build(model)
    module.load_state_dict(load(content))
    return module.eval()


def make_task(dataset_name: str) -> ArrayTask:
    """Return the classification task of a data set: calibrate on training data, score on test."""
    dataset = find_dataset(dataset_name)
    height, width, channels = dataset.image_shape

    def loader(split: str) -> Callable[[], Samples]:
        def load_samples() -> Samples:
            part = load_split(dataset_name, split)
            return Samples((part.images,), part.labels)

        return load_samples

    return ArrayTask(
        name=dataset_name,
        splits={"calibration": loader("train_10k"), "test": loader("test")},
        classes=dataset.classes,
        preprocessing=ImagePreprocessing(height, width, "L" if channels == 1 else "RGB"),
    )
