"""NVIDIA's builder on the TensorRT files of every reference model, without a GPU.

Run as ``python -m benchmarks.runtimes.tensorrt_builds [MODEL...]``. Files of three precisions are
made with shipped weights and noise as calibration data; TensorRT-RTX parses them and builds an
engine for a desktop GPU ahead of time. Nothing is run.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgedl.compress.pipeline import compress
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import TENSORRT
from edgedl.models.data.datasets import find_dataset
from edgedl.models.reference.pretrained import load_pretrained
from edgedl.models.reference.table import REFERENCE_MODELS, ReferenceModel, find_model
from edgedl.runtime.backend import Array
from edgedl.runtime.precision import FLOAT16, FLOAT32, INT8
from edgedl.runtime.task.task import ArrayTask, Samples
from edgedl.runtime.tensorrt.build import BuildSettings, EngineRefusedError
from edgedl.runtime.tensorrt.building import build_engine
from edgedl.tools.jobs.subjects import free_axes
from edgedl.tools.report.table import to_markdown

LIBRARY = "tensorrt_rtx"
COMPUTE_CAPABILITY = "8.6"
PRECISIONS = (FLOAT32, FLOAT16, INT8)
SAMPLES = 32
HEADER = ("network", "precision", "ONNX, KB", "engine, KB", "seconds", "verdict")


@dataclass(frozen=True)
class Row:
    """A file and the engine that was built of it.

    Attributes:
        model, precision: names.
        onnx_bytes, engine_bytes: sizes; None where there is none.
        seconds: that the build took, the process included.
        verdict: "built", or why there is no file or no engine.
    """

    model: str
    precision: str
    onnx_bytes: int | None = None
    engine_bytes: int | None = None
    seconds: float | None = None
    verdict: str = "built"

    def cells(self) -> tuple[str, ...]:
        """Return the row as text."""
        sizes = (self.onnx_bytes, self.engine_bytes)
        kilobytes = ("-" if size is None else f"{size / 1000:.0f}" for size in sizes)
        seconds = "-" if self.seconds is None else f"{self.seconds:.1f}"
        return (self.model, self.precision, *kilobytes, seconds, self.verdict)


def main() -> int:
    """Print a row for each file; exit code 1 if an engine of one could not be built."""
    rows = [row for name in sys.argv[1:] or REFERENCE_MODELS for row in build_all(find_model(name))]
    print(to_markdown(HEADER, [row.cells() for row in rows]))
    return int(any(row.onnx_bytes is not None and row.engine_bytes is None for row in rows))


def build_all(model: ReferenceModel) -> Iterator[Row]:
    """Yield a row for each precision that the default recipe makes of a model for TensorRT."""
    with tempfile.TemporaryDirectory() as folder:
        made = compress(_noisy(model), None, (TENSORRT,), Path(folder), only=PRECISIONS)
        for artifact in made.bundle.manifest.artifacts:
            if artifact.backend != TENSORRT.runtime:
                continue
            content = made.bundle.read(artifact.path)
            settings = BuildSettings(
                LIBRARY, artifact.profile, compute_capabilities=(COMPUTE_CAPABILITY,)
            )
            start = time.monotonic()
            try:
                size = len(build_engine(content, settings).engine)
            except EngineRefusedError as error:
                yield Row(model.name, artifact.precision, len(content), verdict=str(error))
                continue
            taken = time.monotonic() - start
            yield Row(model.name, artifact.precision, len(content), size, taken)
        for refusal in made.refusals:
            precision = refusal.name.partition("-")[2]
            yield Row(model.name, precision, verdict=refusal.reason)


def _noisy(model: ReferenceModel) -> Subject:
    """Return a reference model with noise for data."""
    examples = find_dataset(model.dataset).example_inputs()
    random = np.random.default_rng(0)

    def some(example: Array) -> Array:
        if example.dtype == np.float32:
            return random.standard_normal((SAMPLES, *example.shape[1:]), dtype=np.float32)
        return np.repeat(example, SAMPLES, 0)

    def noise() -> Samples:
        return Samples(tuple(some(x) for x in examples), np.zeros(SAMPLES, np.int64))

    task = ArrayTask("noise", {"calibration": noise, "test": noise})
    return Subject(model.name, load_pretrained(model), task, free_axes=free_axes(model))


if __name__ == "__main__":
    sys.exit(main())
