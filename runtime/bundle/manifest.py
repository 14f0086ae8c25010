"""The records of ``manifest.json``. Strict: unknown or missing keys are an error."""

from typing import Final, Literal, cast, get_args

import msgspec

from edgedl.runtime.bundle.layout import Layout, network_shape
from edgedl.runtime.bundle.preprocess import Preprocessing
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.precision import Precision, precision_named

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
        layout: of a file's tensor whose channels stand elsewhere than the network's, else None.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: ElementType
    scale: float | None = None
    zero_point: int | None = None
    layout: Layout | None = None

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


class LayerParity(_Record, frozen=True):
    """How the integers of one quantized tensor differ between two runs of one table.

    The differences are those of whole runs: what an earlier layer did is in the later ones.

    Attributes:
        node: name of the tensor in the torch graph, the same in every certificate of a bundle.
        layer: path of the torch module that it comes from, "" for the network itself.
        tensor: its name in the file.
        max_lsb: largest difference, in quantization steps (least significant bits).
        mean_lsb: mean difference, in steps.
        differing: share of the integers that differ.
        sqnr_db: energy of the values over that of the differences, in dB; None if none differs.
    """

    node: str
    layer: str
    tensor: str
    max_lsb: int
    mean_lsb: float
    differing: float
    sqnr_db: float | None


class LayerCertificate(_Record, frozen=True):
    """A file held against its torch graph layer by layer.

    Attributes:
        samples: inputs compared.
        outputs_differ: share of output values at which the run that shows the inner tensors
            differs from the run that ships; 0 where it computes the same.
        layers: in the order they run.
        not_compared: tensors of the graph that the file does not hold: fused, or only moved.
        not_read: why the runtime shows none of them; None where it does.
    """

    samples: int
    outputs_differ: float
    layers: tuple[LayerParity, ...]
    not_compared: tuple[str, ...] = ()
    not_read: str | None = None


class RuntimeAgreement(_Record, frozen=True):
    """Two files made of one table for two runtimes, held against each other.

    Attributes:
        first: name of an artifact. second: name of the other.
        samples: inputs whose outputs were compared.
        mean_lsb_error: mean difference of the outputs in their quantization steps; None for floats.
        prediction_agreement: share of samples with the same argmax; None if not a classification.
        layer_samples: inputs whose inner tensors were compared.
        layers: the tensors that both files hold; their names are the first file's.
    """

    first: str
    second: str
    samples: int
    mean_lsb_error: float | None
    prediction_agreement: float | None
    layer_samples: int
    layers: tuple[LayerParity, ...]


class PartParity(_Record, frozen=True):
    """How a part of an output differs from the float32 network: what one concat joined, say.

    Attributes:
        name: which part, and the layer that it comes from.
        values: in one sample.
        sqnr_db: energy of the values over that of the differences, in dB; None if none differs.
        constant: share of the values that vary over the samples in the float32 network and never do
            in the file.
        saturated: share of the values that are at an end of what the file gives, where the float32
            network goes beyond it.
    """

    name: str
    values: int
    sqnr_db: float | None
    constant: float
    saturated: float


class Finding(_Record, frozen=True):
    """A part of an output that a file destroys; such a file is never recommended.

    Attributes:
        output: its name in the file.
        part: which part of it.
        evidence: what was measured.
        layer: to blame, by the name that ``--keep-float`` takes; "" if it was not found.
        cure: what to do.
    """

    output: str
    part: str
    evidence: str
    layer: str
    cure: str

    def describe(self) -> str:
        """Return one sentence.

        >>> Finding("y", "scores", "3.0 dB of the float network", "cat", "try X").describe()
        "output 'y', scores: 3.0 dB of the float network, from the layer 'cat'; try X"
        """
        blamed = f", from the layer '{self.layer}'" if self.layer else ""
        return f"output '{self.output}', {self.part}: {self.evidence}{blamed}; {self.cure}"


class OutputParity(_Record, frozen=True):
    """How one output of a file, run on its runtime, differs from torch.

    Attributes:
        name: in the file.
        max_abs_error: largest difference to the emitted torch graph. mean_abs_error: the mean one.
        max_lsb, mean_lsb: the same in quantization steps of the output; None for floats.
        sqnr_db: energy of the values over that of the differences, in dB; None if none differs.
        float32_sqnr_db: the same against the float32 network: what the file costs.
        graph_sqnr_db: the emitted torch graph's against the float32 network: what its precision
            costs.
        parts: of the output, where its parts differ in origin or in size.
    """

    name: str
    max_abs_error: float
    mean_abs_error: float
    max_lsb: float | None
    mean_lsb: float | None
    sqnr_db: float | None
    float32_sqnr_db: float | None
    graph_sqnr_db: float | None = None
    parts: tuple[PartParity, ...] = ()


class Parity(_Record, frozen=True):
    """How a file's outputs, run on its runtime, differ from the emitted torch graph.

    Attributes:
        samples: inputs compared.
        max_abs_error: largest difference of any output value.
        mean_abs_error: mean difference.
        mean_lsb_error: mean difference in quantization steps of the output; None for floats.
        prediction_agreement: share of samples with the same argmax; None if not a classification.
        float32_agreement: share of samples with the same argmax as the float32 network.
        runtime: what ran the file, for example "onnxruntime 1.31.1".
        layers: the same for every quantized tensor; None for files that have none.
        outputs: the same for every output.
    """

    samples: int
    max_abs_error: float
    mean_abs_error: float
    mean_lsb_error: float | None
    prediction_agreement: float | None
    float32_agreement: float | None
    runtime: str
    layers: LayerCertificate | None = None
    outputs: tuple[OutputParity, ...] = ()


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


# Of manifests; another one is not read.
SCHEMA_VERSION: Final = 2


class Manifest(_Record, frozen=True):
    """Everything a device needs to know about a bundle.

    Attributes:
        name: of the compressed model.
        task: what it is for.
        inputs: logical inputs, float32 after preprocessing.
        outputs: logical outputs, float32.
        preprocessing: how a picture or a file of sensor rows becomes the first input; None for
            plain arrays.
        artifacts: the model files, the float32 reference first.
        files: every file of the bundle but this one.
        history: stages in the order they were applied.
        toolchain: versions that made the files.
        metrics: measured on the making machine.
        recommended: name of the artifact to use, decided by measurement; None if not measured.
        between: int8 files of the same table held against each other.
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
    schema_version: Literal[2] = SCHEMA_VERSION
