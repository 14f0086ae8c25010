"""Weights that others trained and published, read from the packages that hold them."""

import hashlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import TYPE_CHECKING

from edgedl.runtime.errors import BackendUnavailableError, BadInputError, IntegrityError
from edgedl.runtime.install import install_line

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class PublishedWeights:
    """A weight file inside a Python package.

    Attributes:
        package: distribution that holds it; an optional extra of edgedl installs it.
        file: its name in the package.
        sha256: its checksum.
        licence: of the weights, and who trained them.
    """

    package: str
    file: str
    sha256: str
    licence: str


def load_published(module: "nn.Module", weights: PublishedWeights) -> "nn.Module":
    """Put published weights into a module and return it in evaluation mode.

    The file's tensors stand in the order of the module's, under the publisher's names.

    Raises:
        BackendUnavailableError: the package is not installed.
        IntegrityError: the file is not the one that was pinned.
        BadInputError: the tensors do not fit; the first mismatch is named.
    """
    import torch

    path = _find(weights)
    if hashlib.sha256(path.read_bytes()).hexdigest() != weights.sha256:
        raise IntegrityError(f"{path} is not the published file: reinstall {weights.package}")
    found = torch.load(path, map_location="cpu", weights_only=True)
    own = module.state_dict()
    if len(found) != len(own):
        raise BadInputError(f"{path} has {len(found)} tensors, the network {len(own)}")
    for (name, expected), (theirs, value) in zip(own.items(), found.items(), strict=True):
        same_kind = name.rpartition(".")[2] == theirs.rpartition(".")[2]
        if not same_kind or value.shape != expected.shape:
            raise BadInputError(
                f"{path} does not fit: its '{theirs}' {list(value.shape)} stands where the network "
                f"has '{name}' {list(expected.shape)}"
            )
    module.load_state_dict(dict(zip(own, found.values(), strict=True)))
    return module.eval()


def _find(weights: PublishedWeights) -> Path:
    try:
        listed = files(weights.package) or []
    except PackageNotFoundError as error:
        raise BackendUnavailableError(
            f"{weights.package} is missing, it holds the weights: {install_line('pretrained')}"
        ) from error
    for item in listed:
        if item.name == weights.file:
            return Path(str(item.locate()))
    raise IntegrityError(f"{weights.package} has no file {weights.file}: reinstall it")
