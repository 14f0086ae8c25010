"""A stage turns one model state into the next."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import fx, nn

from edgedl.compress.encodings.encodings import QuantizedPrecision
from edgedl.compress.encodings.grouped import WeightOnlyNetwork
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.graph.trace import export_graph, trace
from edgedl.compress.subject.subject import Subject
from edgedl.runtime.bundle.manifest import HistoryEntry
from edgedl.runtime.errors import BadInputError
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


def say_nothing(text: str) -> None:
    """Hear a line and do nothing."""


@dataclass(frozen=True)
class ModelState:
    """A network on its way through the recipe.

    Attributes:
        subject: what is being compressed, with its data.
        graph: canonical float graph; the float files are made of it.
        quantized: what the int8 files are made of, once a stage has quantized the network.
        dynamic_bits: of the weights, where the runtimes shall quantize activations while it runs.
        history: the stages applied so far.
        workspace: folder where long stages keep what they need to go on after an interruption;
            None keeps nothing.
        weights: what the files of integer weights and float arithmetic are made of, once a stage
            has quantized the weights alone.
        say: hears how a long stage gets on.
        parent: the network before stages changed its sizes or trained it; None while they have
            not. It teaches, and everything is measured against it.
    """

    subject: Subject
    graph: fx.GraphModule
    quantized: QuantizedNetwork | None = None
    dynamic_bits: int | None = None
    history: tuple[HistoryEntry, ...] = ()
    workspace: Path | None = None
    weights: WeightOnlyNetwork | None = None
    parent: nn.Module | None = None
    say: Callable[[str], None] = say_nothing

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


class NothingRemovedError(BadInputError):
    """By its settings, a stage that takes something away would take nothing."""


class Stage(Protocol):
    """One technique with its settings."""

    def apply(self, state: ModelState) -> ModelState:
        """Return the next state; the given one stays as it is."""
        ...


# Stages that rewrite the canonical float graph.
REWRITES = ("equalize", "smooth")

INTEGERS: tuple[QuantizedPrecision, ...] = ("int8", "int8_int16")


def quantized_by(
    state: ModelState, stage: str, precisions: tuple[QuantizedPrecision, ...] = INTEGERS
) -> QuantizedNetwork:
    """Return the quantized network that a stage starts from.

    Raises:
        BadInputError: there is none yet, or it is of a precision the stage cannot work on.
    """
    if state.quantized is None:
        raise BadInputError(
            f"the stage {stage} works on a quantized network: "
            "the recipe needs quantize_static before it"
        )
    precision = state.quantized.encodings.precision
    if precision not in precisions:
        raise BadInputError(
            f"the stage {stage} works on {' and '.join(precisions)} networks, this one is "
            f"{precision}: leave the stage out of the recipe"
        )
    return state.quantized


def float_graph(state: ModelState, stage: str) -> fx.GraphModule:
    """Return the float graph that a stage rewrites before anything is quantized.

    Raises:
        BadInputError: the network is quantized already, or its weights are shared.
    """
    if state.quantized is not None:
        raise BadInputError(
            f"the stage {stage} rewrites the float network: "
            "the recipe needs it before quantize_static"
        )
    if state.weights is not None:
        raise BadInputError(
            f"the stage {stage} rewrites the float network, whose weights are quantized already: "
            "the recipe needs it before quantize_weights"
        )
    refuse_after(state, stage, "cluster_weights", "the sharing of weights")
    return state.graph


def refuse_together(stage: str, settings: Mapping[str, object]) -> None:
    """Refuse settings that say the same thing in two ways.

    Args:
        stage: its name.
        settings: name -> value; None is not given.

    Raises:
        BadInputError: more than one is given.
    """
    given = [name for name, value in settings.items() if value is not None]
    if len(given) > 1:
        *others, last = settings
        chosen = "both" if len(settings) == 2 else " and ".join(given)
        raise BadInputError(
            f"{stage} takes one of {', '.join(others)} and {last}, not {chosen}: "
            "leave all but one out"
        )


def refuse_after(state: ModelState, stage: str, earlier: str, reason: str) -> None:
    """Refuse a stage that would undo what another has done.

    Raises:
        BadInputError: the other stage was applied already; ``reason`` says what it did.
    """
    if any(entry.stage == earlier for entry in state.history):
        raise BadInputError(
            f"the stage {stage} would undo {reason}: the recipe needs it before {earlier}"
        )


def trainable_graph(state: ModelState, stage: str) -> fx.GraphModule:
    """Return the float graph, batch norms and all, that a stage cuts or trains.

    Raises:
        BadInputError: the network is quantized already, or a stage has rewritten its weights in
            the canonical graph, where they cannot be trained.
    """
    float_graph(state, stage)
    rewritten = [entry.stage for entry in state.history if entry.stage in REWRITES]
    if rewritten:
        raise BadInputError(
            f"the stage {stage} works on the network as it was trained: "
            f"the recipe needs it before {rewritten[0]}"
        )
    return export_graph(state.subject.module, state.subject.example_inputs())
