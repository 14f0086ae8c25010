"""Are the int8 files of a bundle the same integer network, on the whole test split?

Run as ``python -m edgedl.tools.benchmarks.parity SUBJECT``; compresses it into a temporary folder.
"""

import sys
import tempfile
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgedl.compress.artifacts import output_steps, run_graph
from edgedl.compress.graph.trace import trace
from edgedl.compress.pack import compress
from edgedl.compress.quantize.emit import emit
from edgedl.compress.recipe import load_recipe
from edgedl.compress.stage import ModelState
from edgedl.runtime.bundle import Bundle
from edgedl.runtime.runner import Runner
from edgedl.tools.subjects import find_subject

Floats = npt.NDArray[np.float32]


def main(reference: str) -> None:
    """Print, for each pair, how many predictions differ and by how many output steps."""
    subject = find_subject(reference)
    recipe = load_recipe("static_w8c_a8")
    state = ModelState(subject, trace(subject.module, subject.example_inputs()))
    for stage in recipe.stages:
        state = stage.apply(state)
    with tempfile.TemporaryDirectory() as folder:
        bundle = compress(subject, recipe, ("ort", "tflite"), Path(folder)).bundle
        logits = _logits(state, bundle)
    (step,) = output_steps(state, "tflite")
    for first, second in combinations(logits, 2):
        a, b = logits[first], logits[second]
        differ = float((a.argmax(1) != b.argmax(1)).mean())
        steps = np.abs(a - b) / step
        print(
            f"{first} ~ {second}: {100 * differ:.3f} % of {len(a)} predictions differ, "
            f"mean {steps.mean():.4f} LSB, max {steps.max():.1f} LSB"
        )


def _logits(state: ModelState, bundle: Bundle) -> dict[str, Floats]:
    if state.quantized is None:
        raise ValueError("the recipe quantized nothing")
    graphs = {
        "torch float32": state.graph,
        "torch int8 (ORT, TFLite)": emit(state.quantized.graph, state.quantized.encodings, "ort"),
        "torch int8 (TensorRT)": emit(state.quantized.graph, state.quantized.encodings, "tensorrt"),
    }
    runners = {n: Runner.open(bundle.folder, n) for n in ("ort-int8", "tflite-int8")}
    parts: dict[str, list[Floats]] = {name: [] for name in [*graphs, *runners]}
    for batch in state.subject.task.batches("test", 250):
        for name, graph in graphs.items():
            parts[name].append(run_graph(graph, batch.inputs)[0])
        for name, runner in runners.items():
            parts[name].append(runner(*batch.inputs)[0])
    return {name: np.concatenate(values) for name, values in parts.items()}


if __name__ == "__main__":
    main(sys.argv[1])
