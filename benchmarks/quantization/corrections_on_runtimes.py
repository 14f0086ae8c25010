"""What each correction of a quantized network brings on the runtimes: decibels and milliseconds.

Run as ``python -m benchmarks.quantization.corrections_on_runtimes SUBJECT [TEST
SAMPLES [VARIANT...]] [--without-amx]``; the variants are those of ``benchmarks.corrections``, named
by a part of their names. Every int8 file and those of the runtimes' own quantizers are timed
against each other in one interleaved run, one thread, batch 1.
"""

import itertools
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.quantization.corrections import VARIANTS
from benchmarks.runtimes.peers import (
    CALIBRATION_SAMPLES,
    calibration_samples,
    quantize_onnx,
    quantize_tflite,
)
from edgedl.compress.artifacts.build import ArtifactBuilder
from edgedl.compress.artifacts.loaded_file import LoadedFile, build_and_load, load_file
from edgedl.compress.export.exporter import exporter_of
from edgedl.compress.graph.run import run_graph
from edgedl.compress.stage import Stage
from edgedl.compress.state import ModelState, begin
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.runtime.backends.quiet import quiet
from edgedl.runtime.measure.amx import refuse_amx
from edgedl.runtime.measure.latency_intervals import paired_ratio
from edgedl.runtime.measure.measure import Protocol, measure
from edgedl.runtime.precision import FLOAT32, INT8
from edgedl.tools.jobs.subjects import find_subject
from edgedl.tools.report.table import to_markdown

ON = (ORT, TFLITE)
HEADERS = ["file", "SQNR, dB", "same top-1, %", "KB", "ms", "/ float32 ORT", "/ float32 same"]


def main(reference: str, samples: int = 500, names: Sequence[str] = ()) -> None:
    """Print a line for every file, against the float network on the first test samples."""
    torch.set_num_threads(1)
    subject = find_subject(reference)
    state = begin(subject)
    batches = itertools.islice(subject.task.batches("test", 1), samples)
    inputs = [batch.inputs for batch in batches]
    exact = np.concatenate([run_graph(state.graph, x)[0] for x in inputs])
    files = load_files(state, names)
    times = measure({name: file.timed for name, file in files.items()}, Protocol())
    nanoseconds = {name: m.latency_ns.astype(np.float64) for name, m in times.items()}
    lines = []
    for name, file in files.items():
        y, own = np.concatenate([file.run(x)[0] for x in inputs]), nanoseconds[name]
        bases = (nanoseconds["ort float32"], nanoseconds[f"{name.split()[0]} float32"])
        ratios = [paired_ratio(base, own) for base in bases]
        lines.append(
            [
                name,
                f"{10 * np.log10(np.square(exact).sum() / np.square(y - exact).sum()):.1f}",
                f"{100 * (y.argmax(1) == exact.argmax(1)).mean():.1f}",
                f"{file.size_bytes / 1000:.1f}",
                f"{np.median(own) / 1e6:.2f}",
                *(f"{r.value:.3f} [{r.lo:.3f}, {r.hi:.3f}]" for r in ratios),
            ]
        )
    print(f"{reference}, {len(exact)} test samples")
    print(to_markdown(HEADERS, lines))


def load_files(state: ModelState, names: Sequence[str]) -> dict[str, LoadedFile]:
    """Return the float32 files, the peers' int8 files, and those of every variant."""
    files = {f"{t.name} float32": build_and_load(state, t, FLOAT32) for t in ON}
    files |= load_peers(state)
    done: dict[tuple[Stage, ...], ModelState] = {(): state}
    for name, stages in VARIANTS.items():
        if names and not any(part in name for part in names):
            continue
        for count in range(1, len(stages) + 1):
            first = tuple(stages[:count])
            if first not in done:
                done[first] = first[-1].apply(done[first[:-1]])
        found = done[tuple(stages)]
        print(name, found.history[-1].settings, file=sys.stderr, flush=True)
        files |= {f"{t.name} {name}": build_and_load(found, t, INT8) for t in ON}
    return files


def load_peers(state: ModelState) -> dict[str, LoadedFile]:
    """Return the int8 files that the runtimes' own quantizers make of the float32 files."""
    task, files = state.subject.task, {}
    sample = next(iter(task.batches("test", 1))).inputs
    calibration = calibration_samples(task, CALIBRATION_SAMPLES)
    quantizers = (quantize_onnx, quantize_tflite)
    with tempfile.TemporaryDirectory() as folder, quiet():
        for target, quantize in zip(ON, quantizers, strict=True):
            name, content = ArtifactBuilder(state).file(target, FLOAT32)
            path = Path(folder) / name
            path.write_bytes(content)
            made = quantize(path, exporter_of(target).describe(content)[0], calibration)
            files[f"{target.name} own quantizer"] = load_file(name, made, target, INT8, sample)
    return files


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if "--without-amx" in arguments:
        print(refuse_amx())
        arguments.remove("--without-amx")
    main(arguments[0], int(arguments[1]) if len(arguments) > 1 else 500, arguments[2:])
