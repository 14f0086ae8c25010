"""What the result of a stage depends on. Where all of it is the same, so is the result."""

import hashlib

import msgspec
import numpy as np
import torch
from torch import fx

from edgedl.compress.code_digest import code_digest
from edgedl.compress.digests import tensors_digest
from edgedl.compress.distill.fine_tune import FineTune
from edgedl.compress.factorize.factorize import Factorize
from edgedl.compress.prune.prune_blocks import PruneBlocks
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.quantize.qat.train_quantized import TrainQuantized
from edgedl.compress.quantize.search.mix_precision import MixPrecision
from edgedl.compress.recipe.stages import AnyStage, stage_name
from edgedl.compress.recipe.store.describe import describe
from edgedl.compress.sparsify.zeros import sparse_paths
from edgedl.compress.state import ModelState
from edgedl.compress.training.mixed_precision import has_bfloat16
from edgedl.runtime.measure.device import run_context
from edgedl.runtime.task.task import Task, training_split

KEY_DIGITS = 20
READ_BATCH = 250
TIMES_ON_THIS_MACHINE = (MixPrecision,)


class Ingredients(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What goes into a stage's result.

    Attributes:
        stage: its name.
        settings: its settings, as JSON.
        before: digest of the network that it is applied to.
        beginning: digest of what the recipe begins with: the network, its teachers, how its data
            changes at random.
        data: split -> digest of the samples and labels that the stage may read.
        code: digest of the sources that stages are made of.
        toolchain: package -> version.
        machine: processor, instruction sets and runtimes, for a stage that decides by latency;
            the device of one that trains elsewhere than on the CPU; whether there is bfloat16, for
            one in mixed precision.
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
        described = describe((subject.free_axes, subject.teachers, subject.augment))
        # What would have to be known of the subject to find its results again, and is not.
        self.unknown = described.unknown
        # Dropout draws from torch's own generator.
        parts = [state_digest(begin), described.text, str(torch.initial_seed())]
        self._beginning = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        self._data: dict[str, str] = {}

    def ingredients(self, stage: AnyStage, state: ModelState) -> Ingredients:
        """Return what a stage's result depends on, where it is applied to a state."""
        splits = {"calibration"}
        if _reads_training_data(stage):
            splits.add(training_split(self._task))
        return Ingredients(
            stage_name(type(stage)),
            msgspec.json.encode(stage, order="sorted").decode(),
            state_digest(state),
            self._beginning,
            {split: self._data_digest(split) for split in sorted(splits)},
            code_digest(),
            self._toolchain,
            _machine() if _is_timed(stage) else _training_device(stage, state.subject.device),
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


def _reads_training_data(stage: AnyStage) -> bool:
    if isinstance(stage, PruneChannels):
        return stage.importance == "taylor"
    return isinstance(stage, FineTune | TrainQuantized)


def _is_timed(stage: AnyStage) -> bool:
    by_speed = (
        isinstance(stage, PruneChannels | PruneBlocks | Factorize) and stage.speedup is not None
    )
    return by_speed or isinstance(stage, TIMES_ON_THIS_MACHINE)


def _training_device(stage: AnyStage, device: torch.device) -> str | None:
    """Return where a stage trains, unless on the CPU, and what mixed precision is if it asks."""
    trains = isinstance(stage, FineTune | TrainQuantized) and device.type != "cpu"
    said = [device.type] if trains else []
    if getattr(stage, "mixed_precision", False):
        said.append("bfloat16" if has_bfloat16(device) else "no bfloat16")
    return ", ".join(said) or None


def _machine() -> str:
    context = run_context()
    return f"{context.cpu}; {' '.join(context.isa)}; {context.packages}"
