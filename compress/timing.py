"""Files timed against each other on a runtime, while a stage decides."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgedl.compress.artifacts import ArtifactBuilder
from edgedl.compress.export.onnx import describe_onnx
from edgedl.compress.export.tflite import describe_tflite
from edgedl.compress.stage import ModelState
from edgedl.runtime.backend import open_backend
from edgedl.runtime.manifest import Artifact, Precision
from edgedl.runtime.measure import Arm, Protocol, measure
from edgedl.runtime.runner import encode
from edgedl.runtime.statistics import Estimate, block_median, paired_ratio

Runtime = Literal["ort", "tflite"]


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


def time_arms(arms: Mapping[str, Arm], protocol: Protocol) -> Timings:
    """Time loaded files against each other.

    Raises:
        InvalidMeasurementError: the clock is too coarse.
    """
    found = measure(arms, protocol)
    return Timings({name: m.latency_ns.astype(np.float64) for name, m in found.items()})


def load_arm(state: ModelState, runtime: Runtime, precision: Precision) -> Arm:
    """Make a network's file and load it: one thread, one sample of the calibration split.

    Raises:
        ExportError: the file cannot be made.
        BadInputError: the runtime refuses it.
        BackendUnavailableError: the runtime is not installed.
    """
    path, content = ArtifactBuilder(state).file(runtime, precision)
    describe = describe_tflite if runtime == "tflite" else describe_onnx
    inputs, outputs = describe(content)
    artifact = Artifact("timed", runtime, precision, path, inputs, outputs, 0.0)
    session = open_backend(runtime).load(content, artifact, threads=1)
    samples = state.subject.example_inputs()
    feed = [encode(x[:1].numpy(), s) for x, s in zip(samples, inputs, strict=True)]
    return lambda: session.run(feed)
