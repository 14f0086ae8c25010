"""A network whose trained weights ship inside a package, as a subject."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.real_networks.shelf import PackageShelf
from edgedl.compress.subject.outputs import as_tuple
from edgedl.compress.subject.subject import Subject
from edgedl.models.data.packages import Package
from edgedl.runtime.task.scores import top1
from edgedl.runtime.task.task import Array, ArrayTask, Samples, Scores

# Samples that the float network computes at once.
BATCH = 16


@dataclass(frozen=True)
class Made:
    """A module with its weights, and samples for it: one array [N, ...] per input."""

    module: nn.Module
    calibration: tuple[Array, ...]
    test: tuple[Array, ...]


@dataclass(frozen=True)
class RealNetwork:
    """One network of a package.

    Attributes:
        name: of the network.
        kind: what it is for.
        package: that its weights ship in.
        licence: of the package.
        file: with the weights, inside the unpacked package; sha256: its checksum.
        data: what calibration and test samples are.
        make: reads the file; takes packages with data from the shelf.
        classifies: the largest of the output is the answer.
    """

    name: str
    kind: str
    package: Package
    licence: str
    file: str
    sha256: str
    data: str
    make: Callable[[Path, PackageShelf], Made]
    classifies: bool = False

    def made(self, shelf: PackageShelf) -> Made:
        """Return module and samples.

        Raises:
            EdgedlError: a package cannot be had, or is another one.
        """
        made = self.make(shelf.weights(self.package, self.file, self.sha256), shelf)
        made.module.eval()
        return made

    def subject(self, made: Made) -> Subject:
        """Return the network as a subject whose labels are what it computes itself."""
        splits = {
            name: _split(made.module, inputs, self.classifies)
            for name, inputs in (("calibration", made.calibration), ("test", made.test))
        }
        metric, score = ("top1", top1) if self.classifies else ("fidelity", fidelity)
        task = ArrayTask(self.name, splits, metric, score)
        return Subject(self.name, made.module, task, licence=self.licence, data=self.data)


def fidelity(outputs: Sequence[Array], labels: Array) -> Scores:
    """Score outputs by their energy over that energy and the noise: 1 if nothing was lost.

    Args:
        outputs: arrays [N, ...].
        labels: the float network's, flat and side by side: [N, P].

    >>> fidelity([np.array([[1.0]]), np.array([[3.0]])], np.array([[1.0, 2.0]])).round(3).tolist()
    [0.833]
    """
    found = np.concatenate([y.reshape(len(y), -1) for y in outputs], 1).astype(np.float64)
    wanted = np.asarray(labels, np.float64)
    energy, noise = np.square(wanted).sum(1), np.square(found - wanted).sum(1)
    scores: Scores = np.where(noise > 0, energy / np.maximum(energy + noise, 1e-30), 1.0)
    return scores


def float_outputs(module: nn.Module, inputs: tuple[Array, ...]) -> list["np.ndarray"]:
    """Return every output [N, ...] of the float network."""
    found = []
    with torch.no_grad():
        for start in range(0, len(inputs[0]), BATCH):
            part = [torch.tensor(x[start : start + BATCH]) for x in inputs]
            found.append([y.numpy() for y in as_tuple(module(*part))])
    return [np.concatenate(column) for column in zip(*found, strict=True)]


def _split(module: nn.Module, inputs: tuple[Array, ...], classifies: bool) -> Callable[[], Samples]:
    outputs = float_outputs(module, inputs)
    labels = (
        outputs[0].argmax(1)
        if classifies
        else np.concatenate([y.reshape(len(y), -1) for y in outputs], 1)
    )
    samples = Samples(inputs, labels)
    return lambda: samples
