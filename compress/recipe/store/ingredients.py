"""What the result of a stage depends on. Where all of it is the same, so is the result."""

import hashlib
from dataclasses import dataclass

import msgspec
import numpy as np
import torch
from torch import fx

from edgedl.compress.code_digest import code_digest
from edgedl.compress.digests import tensors_digest
from edgedl.compress.recipe.store.describe import describe
from edgedl.compress.stage import Stage
from edgedl.compress.state import ModelState
from edgedl.compress.training.zeros import sparse_paths
from edgedl.runtime.task.task import Task

KEY_DIGITS = 20
READ_BATCH = 250


class Ingredients(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What goes into a stage's result.

    Attributes:
        stage: its name.
        settings: its settings, as JSON.
        before: digest of the network that it is applied to.
        beginning: digest of what the recipe begins with: the network, its teachers, how its data
            changes at random.
        data: split -> digest of the samples and labels that the stage may read.
        code: digest of the sources that the stage is made of.
        toolchain: package -> version.
        machine: what the stage depends on of the machine; None for nothing.
    """

    stage: str
    settings: str
    before: str
    beginning: str
    data: dict[str, str]
    code: str
    toolchain: dict[str, str]
    machine: str | None

    def key(self) -> str:
        """Return the name of the result."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:KEY_DIGITS]


@dataclass(frozen=True)
class Unknown:
    """Why nothing is kept of a stage: what its result depends on cannot be told."""

    reason: str

    def __str__(self) -> str:
        """Say it."""
        return f"results are not cached: {self.reason}"


class Provenance:
    """Digests of what the stages of one recipe have in common, each taken once."""

    def __init__(self, begin: ModelState, toolchain: dict[str, str]) -> None:
        """Take the state that the recipe begins with.

        Args:
            begin: with its data, which is read where a stage may read it.
            toolchain: package -> version.
        """
        subject = begin.subject
        self._task, self._toolchain = subject.task, toolchain
        described = describe((subject.free_axes, subject.teachers, subject.augment, subject.loss))
        self._unknown = described.unknown
        # Dropout draws from torch's own generator.
        parts = [state_digest(begin), described.text, str(torch.initial_seed())]
        self._beginning = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        self._data: dict[str, str] = {}

    def ingredients(self, stage: Stage, state: ModelState) -> Ingredients | Unknown:
        """Return what a stage's result depends on, where it is applied to a state."""
        if self._unknown:
            what = ", ".join(self._unknown)
            return Unknown(f"teachers, augment or loss contain an object without a digest ({what})")
        code = code_digest(type(stage))
        if code is None:
            return Unknown(
                f"the code of {stage.name} has no digest, because its class is not at the top "
                "level of a file, or the file imports by a name that is not constant"
            )
        return Ingredients(
            stage.name,
            msgspec.json.encode(stage, order="sorted").decode(),
            state_digest(state),
            self._beginning,
            {split: self._data_digest(split) for split in sorted(stage.splits(self._task))},
            code,
            self._toolchain,
            stage.machine(state.subject.device),
        )

    def _data_digest(self, split: str) -> str:
        if split not in self._data:
            self._data[split] = data_digest(self._task, split)
        return self._data[split]


def data_digest(task: Task, split: str) -> str:
    """Return a digest of a split's inputs and labels, and of what they mean; reads all of it."""
    digest = hashlib.sha256(f"{task.name} {split} {task.metric} {task.classes}".encode())
    for batch in task.batches(split, READ_BATCH):
        for values in (*batch.inputs, batch.labels):
            array = np.ascontiguousarray(values)
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(array.data)
    return digest.hexdigest()


def state_digest(state: ModelState) -> str:
    """Return a digest of a network on its way: its structure, its numbers, and what is sparse."""
    parts = [
        *_of_graph(state.graph),
        tensors_digest(state.subject.module.state_dict()),
        str(sparse_paths(state.history)),
        str(state.dynamic_bits),
    ]
    if state.quantized is not None:
        parts += [*_of_graph(state.quantized.graph), state.quantized.encodings.to_json().decode()]
    if state.weights is not None:
        parts += [*_of_graph(state.weights.graph), str(state.weights.bits)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _of_graph(graph: fx.GraphModule) -> tuple[str, str]:
    return str(graph.graph), tensors_digest(graph.state_dict())
