"""Transposed convolutions as they are, and as ordinary ones with a pixel shuffle, on the runtimes.

Run as ``python -m benchmarks.runtimes.transposed_convolutions``. Every row is a
network of a 1x1 convolution, the transposed one and another 1x1, in float32 in both forms and in
int8; one thread, batch 1, interleaved, against ONNX Runtime's float32 file with the operator as it
is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from edgedl.compress.artifacts.build import ArtifactBuilder
from edgedl.compress.artifacts.loaded_file import LoadedFile, load_file
from edgedl.compress.export.onnx.write import to_onnx
from edgedl.compress.export.tflite.write import to_tflite
from edgedl.compress.graph.passes.transposed.join import join_transposed_convolutions
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.state import ModelState, begin
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.compress.targets.target import weight_bits
from edgedl.runtime.errors import EdgedlError
from edgedl.runtime.measure.latency_intervals import paired_ratio
from edgedl.runtime.measure.measure import Protocol, measure
from edgedl.runtime.precision import FLOAT32, INT8
from edgedl.runtime.task.task import ArrayTask, Samples
from edgedl.tools.report.table import to_markdown

SAMPLES = 32
BASELINE = "ort, float32, operator"
HEADER = ["layer", "input", "file", "KB", "ms", "/ float32 ORT, operator"]


@dataclass(frozen=True)
class Case:
    """A transposed convolution of a map [N, inputs, side, side]."""

    inputs: int
    outputs: int
    side: int
    kernel: int
    padding: int = 0
    output_padding: int = 0

    @property
    def name(self) -> str:
        """What people call it."""
        more = f", padding {self.padding}" if self.padding else ""
        return f"{self.kernel}x{self.kernel}, stride 2{more}, {self.inputs} to {self.outputs}"

    def state(self) -> ModelState:
        """Return the traced network with a task of noise."""
        torch.manual_seed(0)
        up = nn.ConvTranspose2d(
            self.inputs, self.outputs, self.kernel, 2, self.padding, self.output_padding
        )
        first, last = nn.Conv2d(8, self.inputs, 1), nn.Conv2d(self.outputs, 8, 1)
        net = nn.Sequential(first, nn.ReLU(), up, nn.ReLU(), last).eval()

        def samples() -> Samples:
            noise = np.random.default_rng(0).normal(size=(SAMPLES, 8, self.side, self.side))
            return Samples((noise.astype(np.float32),), np.zeros(SAMPLES, np.int64))

        task = ArrayTask(
            name="noise",
            splits={"calibration": samples, "test": samples},
            metric="output",
            score_samples=lambda outputs, labels: np.zeros(len(labels)),
        )
        return begin(Subject("up", net, task))


CASES = (
    Case(64, 32, 16, 2),
    Case(64, 32, 16, 3, 1, 1),
    Case(64, 32, 16, 4, 1),
    Case(256, 128, 14, 2),
    Case(256, 128, 14, 4, 1),
)


def files_of(state: ModelState) -> dict[str, LoadedFile | str]:
    """Return the files of both forms, loaded, or why there is none."""
    inputs = state.subject.example_inputs()
    joined = join_transposed_convolutions(state.graph)
    bits = weight_bits((ORT, TFLITE))
    int8 = ArtifactBuilder(QuantizeStatic(SAMPLES, SAMPLES, weight_bits=bits).apply(state))
    makers: dict[str, Callable[[], bytes]] = {
        BASELINE: lambda: to_onnx(joined, inputs),
        "ort, float32, phases": lambda: to_onnx(state.graph, inputs),
        "ort, int8, phases": lambda: int8.file(ORT, INT8)[1],
        "tflite, float32, operator": lambda: to_tflite(joined, inputs, quantized=False),
        "tflite, float32, phases": lambda: to_tflite(state.graph, inputs, quantized=False),
        "tflite, int8, phases": lambda: int8.file(TFLITE, INT8)[1],
    }
    sample = tuple(x[:1].numpy() for x in inputs)
    found: dict[str, LoadedFile | str] = {}
    for name, make in makers.items():
        target = ORT if name.startswith(ORT.name) else TFLITE
        precision = INT8 if INT8.name in name else FLOAT32
        try:
            found[name] = load_file("model", make(), target, precision, sample)
        except EdgedlError as error:
            found[name] = str(error)
    return found


def main() -> None:
    """Print a row for every file."""
    torch.set_num_threads(1)
    lines = []
    for case in CASES:
        files = files_of(case.state())
        loaded = {n: f for n, f in files.items() if isinstance(f, LoadedFile)}
        times = measure({name: file.timed for name, file in loaded.items()}, Protocol())
        nanoseconds = {name: m.latency_ns.astype(np.float64) for name, m in times.items()}
        for name, file in files.items():
            line = [case.name, f"{case.side}x{case.side}", name]
            if isinstance(file, LoadedFile):
                own = nanoseconds[name]
                ratio = paired_ratio(nanoseconds[BASELINE], own)
                interval = f"{ratio.value:.3f} [{ratio.lo:.3f}, {ratio.hi:.3f}]"
                size = f"{file.size_bytes / 1000:.1f}"
                lines.append([*line, size, f"{np.median(own) / 1e6:.3f}", interval])
            else:
                lines.append([*line, "", "", "the converter refuses it"])
    print(to_markdown(HEADER, lines))


if __name__ == "__main__":
    main()
