"""A network on its way through a recipe, and what stages tell those that come after them."""

import enum
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import fx, nn

from edgedl.compress.encodings.grouped import WeightOnlyNetwork
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.errors import first_line
from edgedl.compress.graph.trace import export_graph, trace
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.subject.subject import Subject
from edgedl.runtime.bundle.manifest import HistoryEntry
from edgedl.runtime.errors import BadInputError, EdgedlError
from edgedl.runtime.precision import (
    BFLOAT16,
    DYNAMIC_INT8,
    FLOAT16,
    FLOAT32,
    INT4_WEIGHTS,
    INT8_WEIGHTS,
    Precision,
    precision_named,
)
from edgedl.runtime.progress import SILENT, Progress


class Phase(enum.IntEnum):
    """What a network is, in the order in which it gets there.

    Attributes:
        words: what errors call it.
    """

    words: str

    def __new__(cls, order: int, words: str) -> "Phase":
        """Take the order and the words."""
        phase = int.__new__(cls, order)
        phase._value_ = order
        phase.words = words
        return phase

    TRAINED = 0, "the network as it was trained"
    FLOAT_GRAPH = 1, "the float graph"
    FLOAT = 2, "the float network"
    QUANTIZED = 3, "integers"


@dataclass(frozen=True)
class Trait:
    """What a stage gives a network, and a later one could undo.

    Attributes:
        words: what errors call it.
    """

    words: str


ZEROS = Trait("the pattern of the zeros")
SHARED_WEIGHTS = Trait("the sharing of weights")


class AppliedStage(Protocol):
    """What is asked of a stage that was applied; ``Stage`` says what each means."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def works_on(self) -> Phase: ...  # noqa: D102

    @property
    def yields(self) -> Phase: ...  # noqa: D102

    @property
    def gives(self) -> frozenset[Trait]: ...  # noqa: D102

    @property
    def quantizes_to(self) -> str: ...  # noqa: D102

    @property
    def calibration_samples(self) -> int | None: ...  # noqa: D102


@dataclass(frozen=True)
class ModelState:
    """A network on its way through the recipe.

    Attributes:
        subject: what is being compressed, with its data.
        graph: canonical float graph; the float files are made of it.
        quantized: what the int8 files are made of, once a stage has quantized the network.
        dynamic_bits: of the weights, where the runtimes shall quantize activations while it runs.
        history: what the stages applied so far have recorded.
        workspace: folder where long stages keep what they need to go on after an interruption;
            None keeps nothing.
        weights: what the files of integer weights and float arithmetic are made of, once a stage
            has quantized the weights alone.
        progress: what stages say they are at.
        parent: the network before stages changed its sizes or trained it; None while they have
            not. It teaches, and everything is measured against it.
        stages: those applied so far, one for each entry of the history.
        undone: why stages of the recipe were left out.
    """

    subject: Subject
    graph: fx.GraphModule
    quantized: QuantizedNetwork | None = None
    dynamic_bits: int | None = None
    history: tuple[HistoryEntry, ...] = ()
    workspace: Path | None = None
    weights: WeightOnlyNetwork | None = None
    parent: nn.Module | None = None
    progress: Progress = SILENT
    stages: tuple[AppliedStage, ...] = ()
    undone: tuple[str, ...] = ()

    def trainable_graph(self) -> fx.GraphModule:
        """Return a float graph, batch norms and all, that can be cut and trained."""
        return export_graph(self.subject.module, self.subject.example_inputs())

    def with_network(self, network: TracedNetwork) -> "ModelState":
        """Return the state of a cut or trained network; the one it was made of is the parent.

        Raises:
            StageUndoneError: it does not compute.
        """
        subject = self.subject
        try:
            with torch.no_grad():
                network(*subject.example_inputs())
        except Exception as error:
            # Torch reports sizes that do not fit in many classes.
            raise StageUndoneError(
                f"the network that is left does not compute: {first_line(error)}"
            ) from error
        return replace(
            self,
            subject=replace(subject, module=network),
            graph=trace(network, subject.example_inputs(), subject.free_axes),
            parent=self.parent or subject.module,
        )

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Return the precisions that there can be files of, the lowest last."""
        found = [FLOAT32, FLOAT16, BFLOAT16]
        if self.quantized is not None:
            found.append(precision_named(self.quantized.encodings.precision))
        if self.dynamic_bits is not None:
            found.append(DYNAMIC_INT8)
        if self.weights is not None:
            found.append({4: INT4_WEIGHTS, 8: INT8_WEIGHTS}[self.weights.bits])
        return tuple(found)


def begin(subject: Subject) -> ModelState:
    """Return the state before any stage.

    Raises:
        TraceError: the network cannot be traced.
    """
    return ModelState(subject, trace(subject.module, subject.example_inputs(), subject.free_axes))


class StageUndoneError(EdgedlError):
    """A network gives a stage nothing that it could change rightly: recipes go on without it."""


class NothingRemovedError(BadInputError):
    """By its settings, a stage that takes something away would take nothing."""
