"""What edgedl needs of a runtime to make its files: an exporter."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from torch import fx

from edgedl.compress.encodings.emit import emit
from edgedl.compress.encodings.grouped import WeightOnlyNetwork
from edgedl.compress.encodings.placement import float_islands
from edgedl.compress.errors import ExportError
from edgedl.compress.graph.pictures import NO_PICTURES, Pictures
from edgedl.compress.state import ModelState
from edgedl.compress.targets.target import Target
from edgedl.runtime.backend import Array, Session
from edgedl.runtime.bundle.manifest import TensorSpec
from edgedl.runtime.bundle.shape_range import ShapeRange
from edgedl.runtime.precision import FLOAT32, Precision

T = TypeVar("T")

# Integers minus their zero point: uint8 and int8 grids that differ by 128 give the same.
Centred = npt.NDArray[np.int32]


@dataclass(frozen=True)
class InnerTensor:
    """A tensor of integers and its grid.

    Attributes:
        name: in the graph or file.
        scale: a float32 value.
        zero_point: integer that stands for 0.0.
    """

    name: str
    scale: float
    zero_point: int

    def centre(self, integers: Array) -> Centred:
        """Return integers minus the zero point, int32."""
        return integers.astype(np.int32) - self.zero_point


@dataclass(frozen=True)
class Verdict:
    """What a checker says of a file.

    Attributes:
        checker: who it was.
        accepted: whether it accepts the file.
        reason: the first one why not.
        remarks: what an accepted file is not good for.
    """

    checker: str
    accepted: bool
    reason: str
    remarks: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return one sentence for the manifest."""
        outcome = "accepted" if self.accepted else f"refused ({self.reason})"
        said = "; ".join([f"{outcome} by {self.checker}", *self.remarks])
        return f"{said}; no GPU here, so no engine was run"


class FileSource:
    """A model state, and the forms of it that files of several targets share, each made once."""

    def __init__(self, state: ModelState) -> None:
        """Take the example inputs from the calibration split."""
        self.state = state
        self.inputs = state.subject.example_inputs()
        self._made: dict[str, object] = {}

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Return what a function makes, the same object for the same name."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]  # type: ignore[return-value]

    def has_float_islands(self, target: Target) -> bool:
        """Say whether a quantized network computes in float anywhere on a target."""
        network = self.state.quantized
        if network is None:
            return False
        return bool(float_islands(network.graph.graph, network.encodings, target))

    def pictures(self, target: Target) -> Pictures:
        """Return the inputs and outputs whose channels a target's files have at the end."""
        if target.pictures == "nchw":
            return NO_PICTURES
        return self.once("pictures", lambda: Pictures.of(self.state.graph))

    @property
    def weights(self) -> WeightOnlyNetwork:
        """Return the network whose weights alone are quantized.

        Raises:
            ExportError: there is none.
        """
        if self.state.weights is None:
            raise ExportError("files of integer weights need the stage quantize_weights")
        return self.state.weights


@dataclass(frozen=True)
class StandIn:
    """What computes a file where its runtime cannot run: who it is, and a session."""

    name: str
    session: Session


class Exporter(ABC):
    """Makes the files of one runtime."""

    @abstractmethod
    def float_graph(self, source: FileSource, precision: Precision) -> fx.GraphModule:
        """Return the float graph that a file must agree with."""

    @abstractmethod
    def path(self, target: Target, precision: Precision) -> str:
        """Return the file's name in a bundle; artifacts with the same file have the same."""

    @abstractmethod
    def write(
        self, source: FileSource, graph: fx.GraphModule, target: Target, precision: Precision
    ) -> bytes:
        """Return the file.

        Args:
            source: what it is made of.
            graph: of ``graph``, for the same target and precision.
            target: whose kernels run it.
            precision: of weights and arithmetic.

        Raises:
            ExportError: a converter refuses it.
            BackendUnavailableError: the converter is not installed.
        """

    @abstractmethod
    def describe(self, content: bytes) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Return a file's inputs and outputs, in the order of the graph's."""

    @abstractmethod
    def inner_tensors(self, content: bytes) -> list[InnerTensor]:
        """Return the activations that a file holds as integers, in the file's order."""

    def graph(self, source: FileSource, target: Target, precision: Precision) -> fx.GraphModule:
        """Return the torch graph that the file must agree with.

        Raises:
            ExportError: the state has no such graph.
        """
        state = source.state
        if precision.source == "encodings":
            if state.quantized is None:
                raise ExportError(f"{precision} files need a stage that fills an encodings table")
            return emit(state.quantized.graph, state.quantized.encodings, target)
        if precision.source == "weights":
            return source.weights.graph
        return self.float_graph(source, precision)

    def made_from(self, precision: Precision) -> Precision | None:
        """Return the precision of the file that a file is made from; None if from the graph."""
        return FLOAT32 if precision.source == "running" else None

    def float_operators(self, content: bytes) -> list[str] | None:
        """Return the kinds of operators that the runtime computes in float of an integer file.

        Returns:
            Their names, sorted; None where the runtime cannot be asked.
        """
        return None

    def profile(self, inputs: Sequence[TensorSpec]) -> tuple[ShapeRange, ...]:
        """Return the sizes that an engine of a file is built for; empty where none is built."""
        return ()

    def check(self, content: bytes) -> Verdict | None:
        """Return what a checker says of a file; None where the runtime itself will tell."""
        return None

    def stand_in(
        self, content: bytes, precision: Precision, tensors: Sequence[str] = ()
    ) -> StandIn | None:
        """Return what computes a file where its runtime cannot run; None where nothing does.

        Args:
            content: the file.
            precision: of the file.
            tensors: names of inner values that a run returns behind the outputs.

        Raises:
            BackendUnavailableError: it cannot compute this file.
        """
        return None


def exporter_of(target: Target) -> Exporter:
    """Return the exporter of a target's runtime: that of its folder beside this file."""
    exporter: Exporter = import_module(f"edgedl.compress.export.{target.runtime}.exporter").EXPORTER
    return exporter
