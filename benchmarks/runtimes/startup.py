"""How long the command takes to start, against what cannot be avoided.

Run as ``python -m benchmarks.runtimes.startup BUNDLE``.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.golden import golden_inputs

ROUNDS = 15

RAW_ORT = """
import sys, numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
for row in session.run(None, {name: np.load(sys.argv[2])})[0]:
    print(row)
"""
RAW_TFLITE = """
import sys, numpy as np
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
(i,), (o,) = interpreter.get_input_details(), interpreter.get_output_details()
interpreter.set_tensor(i["index"], np.load(sys.argv[2]))
interpreter.invoke()
print(interpreter.get_tensor(o["index"]))
"""


def main(bundle_folder: Path) -> None:
    """Print medians over interleaved fresh processes, and the two ratios that matter."""
    bundle = Bundle.open(bundle_folder)
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder) / "input.npy"
        np.save(sample, golden_inputs(bundle)[0][:1])
        commands = _commands(bundle, sample)
        times: dict[str, list[float]] = {name: [] for name in commands}
        for round_ in range(ROUNDS):
            names = list(commands)
            for index in np.random.default_rng(round_).permutation(len(names)):
                name = names[index]
                start = time.perf_counter()
                subprocess.run(commands[name], capture_output=True, check=True)
                times[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    for name, seconds in medians.items():
        print(f"{name}: {1e3 * seconds:.0f} ms")
    extra = medians["edgedl --help"] - medians["bare interpreter"]
    print(f"edgedl --help over a bare interpreter: {1e3 * extra:.0f} ms (limit 150)")
    for backend in (ORT.runtime, TFLITE.runtime):
        ratios = np.array(times[f"edgedl run, {backend}"]) / np.array(times[f"raw {backend}"])
        print(f"edgedl run over a raw script, {backend}: {np.median(ratios):.2f} (limit 1.3)")


def _commands(bundle: Bundle, sample: Path) -> dict[str, list[str]]:
    edgedl = str(Path(sys.executable).parent / "edgedl")
    folder, array = str(bundle.folder), str(sample)
    float_file = str(bundle.folder / bundle.artifact("ort-float32").path)
    tflite_file = str(bundle.folder / bundle.artifact("tflite-float32").path)
    run = [edgedl, "run", folder, "--input", array, "--artifact"]
    return {
        "bare interpreter": [sys.executable, "-c", "pass"],
        "edgedl --help": [edgedl, "--help"],
        "raw ort": [sys.executable, "-c", RAW_ORT, float_file, array],
        "edgedl run, ort": [*run, "ort-float32"],
        "raw tflite": [sys.executable, "-c", RAW_TFLITE, tflite_file, array],
        "edgedl run, tflite": [*run, "tflite-float32"],
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
