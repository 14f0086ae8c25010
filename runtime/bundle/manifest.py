"""The records of ``manifest.json``. Strict: unknown or missing keys are an error."""

from typing import Final, Literal, cast, get_args

import msgspec

from edgedl.runtime.bundle.certificates import Finding, GoldenReach, Parity, RuntimeAgreement
from edgedl.runtime.bundle.layout import Layout, network_shape
from edgedl.runtime.bundle.shape_range import ShapeRange
from edgedl.runtime.bundle.state import State
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.precision import Precision, precision_named
from edgedl.runtime.preprocess.preprocessing import Preprocessing

ElementType = Literal["float32", "float16", "int8", "uint8", "int16", "int32", "int64", "bool"]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the manifest's records: immutable and strict."""


class TensorSpec(_Record, frozen=True):
    """An input or output of a network.

    Attributes:
        name: its name in the model file.
        shape: dimensions; None where the size is free.
        dtype: numpy name of the element type.
        scale: quantization step of an integer tensor, else None.
        zero_point: integer that stands for 0.0, else None.
        mean, std: of a file's input that is to be fed normalised, a number for each channel:
            ``(x - mean) / std``; empty where it takes what the network takes.
        layout: of a file's tensor whose channels stand elsewhere than the network's, else None:
            pictures [N, C, H, W] of the network are [N, H, W, C] in a TFLite file.
        low, high: of the network's inputs, the least and the largest value that it was calibrated
            on; None where that is not known.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: ElementType
    scale: float | None = None
    zero_point: int | None = None
    layout: Layout | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        """Refuse means and deviations that cannot be applied.

        Raises:
            BadInputError: there are not as many as channels, or a deviation is 0.
        """
        if not self.mean and not self.std:
            return
        channels = self.network_shape[1] if len(self.shape) > 1 else 0
        if not len(self.mean) == len(self.std) == channels:
            raise BadInputError(
                f"tensor '{self.name}' has {channels} channels, {len(self.mean)} means and "
                f"{len(self.std)} deviations"
            )
        if 0.0 in self.std:
            raise BadInputError(f"a deviation of tensor '{self.name}' is 0")

    @property
    def network_shape(self) -> tuple[int | None, ...]:
        """The dimensions in the order of the network's axes."""
        return self.shape if self.layout is None else network_shape(self.shape, self.layout)

    @classmethod
    def of(
        cls,
        name: str,
        shape: tuple[int | None, ...],
        dtype: str,
        scale: float | None = None,
        zero_point: int | None = None,
    ) -> "TensorSpec":
        """Describe a tensor of a model file.

        Raises:
            BadInputError: edgedl cannot feed or read tensors of this type.
        """
        if dtype not in get_args(ElementType):
            raise BadInputError(f"tensor '{name}' is {dtype}, which edgedl cannot handle")
        return cls(name, shape, cast(ElementType, dtype), scale, zero_point)


class TaskRecord(_Record, frozen=True):
    """What the network is for: task name, metric, and class names in label order."""

    name: str
    metric: str
    classes: tuple[str, ...]


class FileRecord(_Record, frozen=True):
    """Size and sha256 of a file of the bundle."""

    size_bytes: int
    sha256: str


class Artifact(_Record, frozen=True):
    """One model file for one runtime.

    Attributes:
        name: backend and precision, for example "tflite-int8".
        backend: name of the runtime it is for.
        precision: of weights and arithmetic, by name (``edgedl.runtime.precision``).
        path: file inside the bundle; two artifacts may share one file.
        inputs: as in the file, in the order of the manifest's inputs.
        outputs: as in the file, in the order of the manifest's outputs.
        golden_tolerances: largest allowed difference of each output to ``golden.npz``.
        parity: agreement with the torch graph, measured when the bundle was made.
        check: what examined a file that cannot run on the making machine, and its verdict.
        findings: parts of its outputs that it destroys.
        profile: sizes of each input that an engine of it is built for by default; empty where it
            leaves none free, or where its runtime needs no engine.
    """

    name: str
    backend: str
    precision: str
    path: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    golden_tolerances: tuple[float, ...]
    parity: Parity | None = None
    check: str | None = None
    findings: tuple[Finding, ...] = ()
    profile: tuple[ShapeRange, ...] = ()

    @property
    def kind(self) -> Precision:
        """Return what its precision is.

        Raises:
            BadInputError: this edgedl knows none of that name.
        """
        return precision_named(self.precision)


Setting = str | int | float | bool | tuple[str, ...] | None


class HistoryEntry(_Record, frozen=True):
    """A stage that was applied, with all its settings and what it measured."""

    stage: str
    settings: dict[str, Setting]


class HostMetric(_Record, frozen=True):
    """A number measured on the making machine: artifact, name, value and its 95 % interval."""

    artifact: str
    metric: str
    value: float
    ci95: tuple[float, float] | None


# Of manifests. In those of version 2 no file has a layout of its own; before version 4 a manifest
# has no digest beside it; before version 5 no file has a profile; before version 6 pictures are
# stretched, there is neither sound nor text, inputs have no range
# and golden vectors no reach; before version 7 no network has a state.
SCHEMA_VERSION: Final = 7
READABLE_VERSIONS: Final = (2, 3, 4, 5, 6, SCHEMA_VERSION)
FIRST_WITH_DIGEST: Final = 4


class Manifest(_Record, frozen=True):
    """Everything a device needs to know about a bundle.

    Attributes:
        name: of the compressed model.
        task: what it is for.
        inputs: logical inputs, float32 after preprocessing.
        outputs: logical outputs, float32.
        preprocessing: how a picture, a file of sensor rows, a sound or a text becomes the first
            inputs; None for plain arrays.
        artifacts: the model files, the float32 reference first.
        files: every file of the bundle but this one.
        history: stages in the order they were applied.
        toolchain: versions that made the files.
        metrics: measured on the making machine.
        recommended: name of the artifact to use, decided by measurement; None if not measured.
        between: int8 files of the same table held against each other.
        golden_reach: how much of the network the golden vectors check; None if not known.
        states: inputs that take what outputs gave in the call before, the last of the inputs.
        licence: of the weights. data: provenance of calibration and evaluation data.
    """

    name: str
    task: TaskRecord
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing | None
    artifacts: tuple[Artifact, ...]
    files: dict[str, FileRecord]
    history: tuple[HistoryEntry, ...]
    toolchain: dict[str, str]
    licence: str
    data: str
    metrics: tuple[HostMetric, ...] = ()
    recommended: str | None = None
    between: tuple[RuntimeAgreement, ...] = ()
    golden_reach: GoldenReach | None = None
    states: tuple[State, ...] = ()
    schema_version: Literal[2, 3, 4, 5, 6, 7] = SCHEMA_VERSION
