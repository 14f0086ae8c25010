"""What float layers cost: files with and without them, timed against each other on a runtime."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgedl.compress.artifacts import ArtifactBuilder
from edgedl.compress.export.onnx import describe_onnx
from edgedl.compress.export.tflite import describe_tflite
from edgedl.compress.stage import ModelState, quantized_by
from edgedl.runtime.backend import open_backend
from edgedl.runtime.manifest import Artifact
from edgedl.runtime.measure import Arm, Protocol, measure
from edgedl.runtime.runner import encode
from edgedl.runtime.statistics import Estimate, block_median, paired_ratio

Runtime = Literal["ort", "tflite"]
# The operators that a file computes in float besides those the network's table names; None is the
# float32 file.
FloatNodes = frozenset[str] | None
ALL_INT8: FloatNodes = frozenset()
FLOAT32: FloatNodes = None


@dataclass(frozen=True)
class Timings:
    """Files timed in one process, interleaved.

    Attributes:
        latency_ns: name of the file -> float64 [blocks, calls].
    """

    latency_ns: Mapping[str, npt.NDArray[np.float64]]

    def ratio(self, baseline: str, candidate: str) -> Estimate:
        """Return a file's latency over another's, with its 95 % interval."""
        return paired_ratio(self.latency_ns[baseline], self.latency_ns[candidate])

    def median_ms(self, name: str) -> Estimate:
        """Return a file's median latency in milliseconds, with its 95 % interval."""
        found = block_median(self.latency_ns[name])
        return Estimate(found.value / 1e6, found.lo / 1e6, found.hi / 1e6)


class FileTimer:
    """Exports files of one network, each once, and times them with one thread, batch 1.

    What the runtime converts between float and integer layers is part of the time.
    """

    def __init__(
        self, state: ModelState, runtime: Runtime, protocol: Protocol | None = None
    ) -> None:
        """Take the sample to run from the calibration split.

        Raises:
            BadInputError: the state is not quantized.
            BackendUnavailableError: the runtime is not installed.
        """
        quantized_by(state, "layer_cost", ("int8",))
        self._state, self._runtime = state, runtime
        self._protocol = protocol or Protocol()
        self._backend = open_backend(runtime)
        self._arms: dict[FloatNodes, Arm] = {}

    def time(self, files: Mapping[str, FloatNodes]) -> Timings:
        """Time files against each other.

        Args:
            files: name -> what is float in it; two names may stand for one file, whose two times
                then show the noise floor.

        Raises:
            ExportError: a file cannot be made.
            BadInputError: the runtime refuses a file.
            InvalidMeasurementError: the clock is too coarse.
        """
        arms = {name: self._arm(float_nodes) for name, float_nodes in files.items()}
        found = measure(arms, self._protocol)
        return Timings({name: m.latency_ns.astype(np.float64) for name, m in found.items()})

    def _arm(self, float_nodes: FloatNodes) -> Arm:
        if float_nodes not in self._arms:
            self._arms[float_nodes] = self._load(float_nodes)
        return self._arms[float_nodes]

    def _load(self, float_nodes: FloatNodes) -> Arm:
        state = _with_float(self._state, float_nodes)
        precision: Literal["float32", "int8"] = "float32" if float_nodes is None else "int8"
        path, content = ArtifactBuilder(state).file(self._runtime, precision)
        describe = describe_tflite if self._runtime == "tflite" else describe_onnx
        inputs, outputs = describe(content)
        artifact = Artifact("timed", self._runtime, precision, path, inputs, outputs, 0.0)
        session = self._backend.load(content, artifact, threads=1)
        samples = state.subject.example_inputs()
        feed = [encode(x[:1].numpy(), s) for x, s in zip(samples, inputs, strict=True)]
        return lambda: session.run(feed)


def _with_float(state: ModelState, float_nodes: FloatNodes) -> ModelState:
    if float_nodes is None or state.quantized is None:
        return state
    encodings = state.quantized.encodings
    kept = encodings.float_nodes | float_nodes
    return replace(
        state,
        quantized=replace(state.quantized, encodings=replace(encodings, float_nodes=kept)),
    )
