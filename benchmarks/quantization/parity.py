"""Are the int8 files of a bundle the same integer network, on the test split and layer by layer?

Run as ``python -m benchmarks.quantization.parity SUBJECT [SAMPLES]``; compresses it
into a temporary folder. SAMPLES are of the test split, all of it by default.
"""

import sys
import tempfile
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgedl.compress.artifacts.build import BuiltArtifact
from edgedl.compress.artifacts.tolerance import output_steps
from edgedl.compress.encodings.emit import emit
from edgedl.compress.export.tensorrt.integer_emulator import IntegerEmulator
from edgedl.compress.graph.run import run_graph
from edgedl.compress.parity.layers import LAYER_SAMPLES, certify_layers, single_samples
from edgedl.compress.pipeline import compress
from edgedl.compress.recipe.recipe import fit
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.state import ModelState, begin
from edgedl.compress.targets.named import ORT, TENSORRT, TFLITE
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.layer_vectors import LAYER_VECTORS
from edgedl.runtime.precision import INT8
from edgedl.runtime.runner import Runner
from edgedl.runtime.selfcheck.layers import can_check_layers, check_layers
from edgedl.tools.jobs.subjects import find_subject
from edgedl.tools.report.parity import parity_markdown

EMULATED = "tensorrt-int8, integer emulator"
Floats = npt.NDArray[np.float32]


def main(reference: str, samples: int | None = None) -> None:
    """Print how every pair of networks differs, the certificates of the layers, and their cost."""
    subject = find_subject(reference)
    targets = (ORT, TFLITE, TENSORRT)
    # As compress() fits it: 7-bit weights where this processor has no VNNI.
    recipe = fit(load_recipe("static_w8c_a8"), targets)
    state = begin(subject)
    for stage in recipe.stages:
        state = stage.apply(state)
    with tempfile.TemporaryDirectory() as folder:
        bundle = compress(subject, recipe, targets, Path(folder)).bundle
        logits = _logits(state, bundle, samples)
        _print_cost(state, bundle)
        print(parity_markdown(bundle.manifest))
    (step,) = output_steps(state, TFLITE)
    for first, second in combinations(logits, 2):
        a, b = logits[first], logits[second]
        differ = float((a.argmax(1) != b.argmax(1)).mean())
        steps = np.abs(a - b) / step
        print(
            f"{first} ~ {second}: {100 * differ:.3f} % of {len(a)} predictions differ, "
            f"mean {steps.mean():.4f} LSB, max {steps.max():.1f} LSB"
        )


def _print_cost(state: ModelState, bundle: Bundle) -> None:
    """Print what the certificates cost: seconds to make and to replay, bytes."""
    if state.quantized is None:
        raise ValueError("the recipe quantized nothing")
    batches = state.subject.task.batches("test", LAYER_SAMPLES)
    inputs = list(single_samples([next(iter(batches)).inputs]))
    for target in (ORT, TFLITE, TENSORRT):
        artifact = bundle.artifact(target.artifact_name(INT8))
        graph = emit(state.quantized.graph, state.quantized.encodings, target)
        built = BuiltArtifact(artifact, bundle.read(artifact.path), graph, target)
        start = time.perf_counter()
        certify_layers(built, inputs)
        made = time.perf_counter() - start
        start = time.perf_counter()
        if can_check_layers(bundle, artifact):
            check_layers(bundle, artifact)
        replayed = time.perf_counter() - start
        print(f"{artifact.name}: certified in {made:.2f} s, replayed in {replayed:.2f} s")
    files = bundle.manifest.files
    total = sum(f.size_bytes for f in files.values())
    size = files[LAYER_VECTORS].size_bytes
    print(f"{LAYER_VECTORS}: {size} bytes, {100 * size / total:.1f} % of the bundle\n")


def _logits(state: ModelState, bundle: Bundle, samples: int | None) -> dict[str, Floats]:
    if state.quantized is None:
        raise ValueError("the recipe quantized nothing")
    graphs = {
        "torch float32": state.graph,
        "torch int8 (ORT, TFLite)": emit(state.quantized.graph, state.quantized.encodings, ORT),
        "torch int8 (TensorRT)": emit(state.quantized.graph, state.quantized.encodings, TENSORRT),
    }
    runners = {n: Runner.open(bundle.folder, n) for n in ("ort-int8", "tflite-int8")}
    emulator = IntegerEmulator(bundle.read(bundle.artifact("tensorrt-int8").path))
    parts: dict[str, list[Floats]] = {name: [] for name in [*graphs, *runners, EMULATED]}
    seen = 0
    for batch in state.subject.task.batches("test", 250):
        if samples is not None and seen >= samples:
            break
        seen += len(batch.labels)
        for name, graph in graphs.items():
            parts[name].append(run_graph(graph, batch.inputs)[0])
        for name, runner in runners.items():
            parts[name].append(runner(*batch.inputs)[0])
        parts[EMULATED].append(emulator.run(batch.inputs)[0].astype(np.float32))
    return {name: np.concatenate(values) for name, values in parts.items()}


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None)
