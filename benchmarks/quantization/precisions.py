"""What each precision costs in fidelity, size and time: int8, 16-bit activations, FP8, bfloat16.

Run as ``python -m benchmarks.quantization.precisions SUBJECT [TEST SAMPLES [RUNS]]``.
TFLite's files run on LiteRT, one thread, their timed runs interleaved; for TensorRT the emitted
torch graph, which its file is held against, stands in, and there is no time.
"""

import itertools
import statistics
import sys
import time

import numpy as np
import torch

from edgedl.compress.artifacts.loaded_file import LoadedFile, build_and_load
from edgedl.compress.encodings.emit import emit
from edgedl.compress.export.float_types import to_bfloat16
from edgedl.compress.graph.run import run_graph
from edgedl.compress.graph.trace import trace
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.state import ModelState
from edgedl.compress.targets.named import TENSORRT, TFLITE
from edgedl.compress.targets.target import Target
from edgedl.runtime.backend import Array
from edgedl.runtime.precision import FLOAT32, FP8, INT8, INT8_INT16
from edgedl.runtime.tensors import Floats
from edgedl.tools.jobs.subjects import find_subject
from edgedl.tools.report.table import to_markdown

RECIPES = {INT8: "static_w8c_a8", INT8_INT16: "static_w8c_a16", FP8: "static_fp8"}
Samples = list[tuple[Array, ...]]


def main(reference: str, samples: int = 500, runs: int = 200) -> None:
    """Print a line for every precision, against the float network on the first test samples."""
    torch.set_num_threads(1)
    subject = find_subject(reference)
    graph = trace(subject.module, subject.example_inputs(), subject.free_axes)
    batches = itertools.islice(subject.task.batches("test", 1), samples)
    pairs = [(batch.inputs, batch.labels) for batch in batches]
    inputs, labels = [x for x, _ in pairs], np.concatenate([y for _, y in pairs])
    states = {p: _apply(name, ModelState(subject, graph)) for p, name in RECIPES.items()}
    found = {"torch float32": [run_graph(graph, x)[0] for x in inputs]}
    files = {"float32": build_and_load(ModelState(subject, graph), TFLITE, FLOAT32)}
    files |= {p.name: build_and_load(states[p], TFLITE, p) for p in (INT8, INT8_INT16)}
    for name, file in files.items():
        found[f"tflite {name}"] = [file.run(x)[0] for x in inputs]
    found["tensorrt bfloat16, torch"] = _outputs(to_bfloat16(graph), inputs)
    for precision in (INT8, FP8):
        found[f"tensorrt {precision}, torch"] = _emitted(states[precision], TENSORRT, inputs)
    times = _interleaved(files, runs)
    exact = np.concatenate(found["torch float32"])
    lines = []
    for name, parts in found.items():
        y, file_name = np.concatenate(parts), name.removeprefix("tflite ")
        measured = name.startswith(TFLITE.name)
        error = np.square(y - exact).sum()
        lines.append(
            [
                name,
                f"{files[file_name].size_bytes / 1000:.1f}" if measured else "",
                f"{10 * np.log10(np.square(exact).sum() / error):.1f}" if error else "exact",
                f"{100 * (y.argmax(1) == exact.argmax(1)).mean():.1f}",
                f"{100 * subject.task.score([y], labels).mean():.1f}",
                f"{times[file_name] / times['float32']:.2f}" if measured else "",
            ]
        )
    print(f"{reference}, {len(exact)} test samples, {runs} timed runs each")
    headers = ["file", "KB", "SQNR, dB", "same top-1, %", "score, %", "time / float32"]
    print(to_markdown(headers, lines))


def _apply(recipe: str, state: ModelState) -> ModelState:
    for stage in load_recipe(recipe).stages:
        state = stage.apply(state)
    return state


def _emitted(state: ModelState, target: Target, inputs: Samples) -> list[Floats]:
    if state.quantized is None:
        raise ValueError("the recipe quantized nothing")
    return _outputs(emit(state.quantized.graph, state.quantized.encodings, target), inputs)


def _outputs(graph: torch.fx.GraphModule, inputs: Samples) -> list[Floats]:
    return [run_graph(graph, x)[0] for x in inputs]


def _interleaved(files: dict[str, LoadedFile], runs: int) -> dict[str, float]:
    """Return the median thread-CPU seconds of every file, their runs taken in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(runs):
        for name, file in files.items():
            start = time.thread_time()
            file.timed()
            seconds[name].append(time.thread_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


if __name__ == "__main__":
    main(sys.argv[1], *(int(n) for n in sys.argv[2:]))
