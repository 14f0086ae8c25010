"""edgedl's quickest int8 file against torch's exporter and ONNX Runtime's own quantizer.

Run as ``python -m benchmarks.making.fast SUBJECT``. Both begin with the loaded network and end with
a static int8 file for ONNX Runtime, from the same calibration samples: edgedl's recipe ``fast``,
and ``torch.onnx.export`` with ``quantize_static``. Nothing is scored, checked or timed on the way.
Each runs three times, in turn, in a process of its own that has imported torch and the exporter
before; agreement is the share of test samples with the float network's class.
"""

import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from benchmarks.runtimes.peers import calibration_samples, quantize_onnx
from edgedl.compress.artifacts.build import ArtifactBuilder
from edgedl.compress.export.onnx.write import describe_onnx
from edgedl.compress.graph.trace import trace
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.state import ModelState
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT
from edgedl.runtime.precision import INT8
from edgedl.runtime.tensors import encode
from edgedl.tools.jobs.subjects import find_subject
from edgedl.tools.report.table import to_markdown

ROUNDS = 3
OWN, PEER = "edgedl, fast", "torch.onnx.export, quantize_static"
HEADER = ("file", "seconds", "processor seconds", "SQNR, dB", "agreement, %")


def make_own(subject: Subject) -> bytes:
    """Return the int8 file of the recipe ``fast``."""
    graph = trace(subject.module, subject.example_inputs(), subject.free_axes)
    state = _stage().fit((ORT,)).apply(ModelState(subject, graph))
    _, content = ArtifactBuilder(state).file(ORT, INT8)
    return content


def _stage() -> QuantizeStatic:
    """Return the only stage of the recipe ``fast``."""
    (stage,) = load_recipe("fast").stages
    if not isinstance(stage, QuantizeStatic):
        raise TypeError("the recipe fast is static quantization alone")
    return stage


def make_peer(subject: Subject) -> bytes:
    """Return ONNX Runtime's int8 file of what torch's exporter writes."""
    batch = torch.export.Dim("batch")
    examples = tuple(x[:2] for x in subject.example_inputs())
    with tempfile.TemporaryDirectory() as folder:
        float32 = Path(folder) / "float32.onnx"
        torch.onnx.export(
            subject.module,
            examples,
            str(float32),
            dynamo=True,
            external_data=False,
            dynamic_shapes=tuple({0: batch} for _ in examples),
            verbose=False,
        )
        inputs, _ = describe_onnx(float32.read_bytes())
        samples = calibration_samples(subject.task, _stage().samples)
        return quantize_onnx(float32, inputs, samples)


MAKERS = {OWN: make_own, PEER: make_peer}


def make(name: str, reference: str, target: Path) -> None:
    """Make one of the files, and print the seconds and processor seconds that it took."""
    # Both need it: its import is not part of making a file.
    import onnxscript  # noqa: F401

    subject = find_subject(reference)
    wall, cpu = time.perf_counter(), time.process_time()
    content = MAKERS[name](subject)
    print(time.perf_counter() - wall, time.process_time() - cpu)
    target.write_bytes(content)


def main(reference: str) -> None:
    """Print the table, and the ratios of edgedl's seconds over the peer's."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in MAKERS}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{k}.onnx" for k, name in enumerate(MAKERS)}
        for _ in range(ROUNDS):
            for name, file in files.items():
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.making.fast",
                    reference,
                    name,
                    str(file),
                ]
                said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                wall, cpu = map(float, said.split()[-2:])
                taken[name].append((wall, cpu))
        subject = find_subject(reference)
        rows = [
            [
                name,
                *(_span(column) for column in zip(*taken[name], strict=True)),
                *fidelity(file, subject),
            ]
            for name, file in files.items()
        ]
    print(f"{subject.name}, {os.cpu_count()} cores, {ROUNDS} runs of each:\n")
    print(to_markdown(list(HEADER), rows))
    for k, unit in enumerate(("seconds", "processor seconds")):
        ratio = np.median([t[k] for t in taken[OWN]]) / np.median([t[k] for t in taken[PEER]])
        print(f"{unit}, edgedl over the peer: {ratio:.2f}")


def fidelity(file: Path, subject: Subject) -> tuple[str, str]:
    """Return the SQNR of the first output on the test split, and how often the class agrees."""
    session = onnxruntime.InferenceSession(file)
    specs, _ = describe_onnx(file.read_bytes())
    signal = noise = 0.0
    same = []
    for batch in subject.task.batches("test", 32):
        feeds = {s.name: encode(x, s) for x, s in zip(batch.inputs, specs, strict=True)}
        found = np.asarray(session.run(None, feeds)[0], np.float64)
        with torch.no_grad():
            exact = subject.module(*(torch.from_numpy(x) for x in batch.inputs)).double().numpy()
        signal += float(np.square(exact).sum())
        noise += float(np.square(found - exact).sum())
        same += list(found.argmax(-1) == exact.argmax(-1))
    return f"{10 * math.log10(signal / noise):.1f}", f"{100 * np.mean(same):.1f}"


def _span(values: tuple[float, ...]) -> str:
    """Return the median, the least and the largest."""
    return f"{np.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(sys.argv[1])
    else:
        make(sys.argv[2], sys.argv[1], Path(sys.argv[3]))
