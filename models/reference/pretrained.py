"""Build a reference model, with fresh weights or with those that ship."""

import hashlib
import importlib
import json
from typing import TYPE_CHECKING

import msgspec

from edgedl.models.data.datasets import find_dataset
from edgedl.models.reference.published import load_published
from edgedl.models.reference.table import ReferenceModel
from edgedl.models.shipped import shipped
from edgedl.runtime.errors import BadInputError, IntegrityError
from edgedl.runtime.wording import nearest

if TYPE_CHECKING:
    from torch import nn


class TrainingRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known about shipped weights.

    Attributes:
        name: reference model.
        dataset: data set and split trained on, with its licence.
        command: the command that trained it.
        seed: its seed; epochs: its epochs.
        test_score_percent: score on the whole test split, in percent.
        test_samples: size of that split.
        parameters: number of trained values.
        macs: multiply-accumulates of one inference.
        torch: version that trained it.
        weights_sha256: checksum of the safetensors file.
        training_minutes: wall-clock minutes, None where it was not recorded.
        metric: name of the score.
    """

    name: str
    dataset: str
    command: str
    seed: int
    epochs: int
    test_score_percent: float
    test_samples: int
    parameters: int
    macs: int
    torch: str
    weights_sha256: str
    training_minutes: float | None = None
    metric: str = "top1"


def build(model: ReferenceModel) -> "nn.Module":
    """Return the architecture with fresh random weights."""
    dataset = find_dataset(model.dataset)
    module, _, name = model.architecture.partition(":")
    architecture = getattr(importlib.import_module(f"edgedl.models.{module}"), name)
    made: nn.Module = architecture(**dataset.network_arguments, **model.arguments)
    return made


def has_weights(model: ReferenceModel) -> bool:
    """Return whether trained weights ship for this model.

    Raises:
        BackendUnavailableError: edgedl-models, which would have them, is not installed.
    """
    return (shipped("weights") / f"{model.name}.json").is_file()


def load_record(model: ReferenceModel) -> TrainingRecord:
    """Return the record of the shipped weights.

    Raises:
        BackendUnavailableError: edgedl-models is not installed.
        BadInputError: when no weights ship for this model.
    """
    path = shipped("weights") / f"{model.name}.json"
    if not path.is_file():
        raise BadInputError(
            f"no weights ship for {model.name}: train them with 'edgedl train {model.name}'"
        )
    return msgspec.convert(json.loads(path.read_text()), TrainingRecord)


def load_pretrained(model: ReferenceModel) -> "nn.Module":
    """Return the architecture with its shipped or published weights, in evaluation mode.

    Raises:
        BackendUnavailableError: edgedl-models, or the package that holds published weights, is not
            installed.
        IntegrityError: the weight file is not the one its record describes.
        BadInputError: no weights ship, or they do not fit the architecture.
    """
    if model.published is not None:
        return load_published(build(model), model.published)
    record = load_record(model)
    content = (shipped("weights") / f"{model.name}.safetensors").read_bytes()
    if hashlib.sha256(content).hexdigest() != record.weights_sha256:
        raise IntegrityError(
            f"the shipped weights of {model.name} are damaged: reinstall edgedl-models"
        )
    return load_weights(build(model), content, model.name)


def load_weights(module: "nn.Module", content: bytes, source: str) -> "nn.Module":
    """Put the tensors of a safetensors file into a module and return it in evaluation mode.

    Values stored as float16 are widened to the module's own type.

    Raises:
        BadInputError: not a safetensors file, or it does not fit; the first mismatch is named.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found = load(content)
    except SafetensorError as error:
        raise BadInputError(f"{source} is not a readable safetensors file ({error})") from error
    for name, expected in module.state_dict().items():
        if name not in found:
            raise BadInputError(f"{source} does not fit: it has no '{name}'{nearest(name, found)}")
        if found[name].shape != expected.shape:
            raise BadInputError(
                f"{source} does not fit: '{name}' has the shape {list(found[name].shape)}, "
                f"the network's is {list(expected.shape)}"
            )
    known = module.state_dict()
    extra = next((name for name in found if name not in known), None)
    if extra is not None:
        raise BadInputError(
            f"{source} does not fit: the network has no '{extra}'{nearest(extra, known)}"
        )
    module.load_state_dict(found)
    return module.eval()
