"""What a call of the runner adds to the runtime's own, on a network of 8 KB, one thread.

Run as ``python -m benchmarks.runtimes.call_overhead [--rounds N]``. All ways to call are timed in
turn in one process, in random order, one sample a call. The floor of ONNX Runtime is a call whose
inputs and outputs are bound beforehand, that of LiteRT is set_tensor, invoke and get_tensor;
neither checks anything. Printed are medians over rounds of the rounds' medians, and of the
difference to the floor of the same round with a 95 % interval (bootstrap).
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import nn

from edgedl.compress.pipeline import compress
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.precision import FLOAT32
from edgedl.runtime.runner import Runner
from edgedl.runtime.task.task import ArrayTask, Samples
from edgedl.tools.report.table import to_markdown

WIDTHS = (32, 48, 10)
WARM_UP, CALLS, RESAMPLES = 20, 200, 1000
HEADER = ("call", "us", "over the floor, us", "95 %")
Calls = dict[str, tuple[str, Callable[[], Any]]]


def main() -> None:
    """Print a row for each way to call."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        bundle = _bundle(Path(folder))
        with (
            Runner.open(bundle.folder, "ort-float32") as ort,
            Runner.open(bundle.folder, "tflite-float32") as tflite,
        ):
            calls = {**_on_onnx_runtime(bundle, ort), **_on_litert(bundle, tflite)}
            print(to_markdown(HEADER, _rows(calls, _measure(calls, rounds))))


def _bundle(folder: Path) -> Bundle:
    torch.manual_seed(0)
    inside, hidden, outside = WIDTHS
    network = nn.Sequential(nn.Linear(inside, hidden), nn.ReLU(), nn.Linear(hidden, outside))

    def noise() -> Samples:
        values = np.random.default_rng(0).standard_normal((32, inside), dtype=np.float32)
        return Samples((values,), np.zeros(32, np.int64))

    subject = Subject("mlp", network, ArrayTask("noise", {"calibration": noise, "test": noise}))
    recipe = load_recipe("float")
    return compress(subject, recipe, (ORT, TFLITE), folder, only=(FLOAT32,)).bundle


def _sample() -> Any:
    return np.random.default_rng(1).standard_normal((1, WIDTHS[0]), dtype=np.float32)


def _on_onnx_runtime(bundle: Bundle, runner: Runner) -> Calls:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    content = bundle.read(runner.artifact.path)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    x, y = _sample(), np.empty((1, WIDTHS[-1]), np.float32)
    (source,), (sink,) = session.get_inputs(), session.get_outputs()
    binding = session.io_binding()
    binding.bind_cpu_input(source.name, x)
    binding.bind_output(sink.name, "cpu", 0, y.dtype, y.shape, y.ctypes.data)
    floor, bound = "ONNX Runtime, bound beforehand", runner.bind(x)
    return {
        floor: (floor, lambda: session.run_with_iobinding(binding)),
        "ONNX Runtime, session.run": (floor, lambda: session.run(None, {source.name: x})),
        "edgedl, r(x)": (floor, lambda: runner(x)),
        "edgedl, r.bind": (floor, bound.run),
    }


def _on_litert(bundle: Bundle, runner: Runner) -> Calls:
    interpreter = Interpreter(model_content=bundle.read(runner.artifact.path), num_threads=1)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    sink = interpreter.get_output_details()[0]["index"]
    x = _sample()

    def call() -> Any:
        interpreter.set_tensor(source, x)
        interpreter.invoke()
        return interpreter.get_tensor(sink)

    floor = "LiteRT, set, invoke, get"
    return {floor: (floor, call), "edgedl on LiteRT, r(x)": (floor, lambda: runner(x))}


def _measure(calls: Calls, rounds: int) -> dict[str, Any]:
    """Return the median time of a call in each round, us."""
    rng, clock = np.random.default_rng(0), time.perf_counter_ns
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in rng.permutation(list(calls)):
            call = calls[name][1]
            for _ in range(WARM_UP):
                call()
            times = []
            for _ in range(CALLS):
                start = clock()
                call()
                times.append(clock() - start)
            found[name].append(float(np.median(times)) / 1000)
    return {name: np.array(times) for name, times in found.items()}


def _rows(calls: Calls, times: dict[str, Any]) -> list[tuple[str, ...]]:
    rng = np.random.default_rng(0)
    rows: list[tuple[str, ...]] = []
    for name, (floor, _) in calls.items():
        over = times[name] - times[floor]
        drawn = rng.integers(0, len(over), (RESAMPLES, len(over)))
        lo, hi = np.quantile(np.median(over[drawn], 1), (0.025, 0.975))
        difference = (
            ("", "") if name == floor else (f"{np.median(over):.1f}", f"{lo:.1f} to {hi:.1f}")
        )
        rows.append((name, f"{np.median(times[name]):.1f}", *difference))
    return rows


if __name__ == "__main__":
    main()
