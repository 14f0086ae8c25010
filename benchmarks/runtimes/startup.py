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
from edgedl.runtime.tensors import encode

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

RUNNER = """
import sys, numpy as np
from pathlib import Path
from edgedl import Runner
with Runner.open(Path(sys.argv[1]), sys.argv[2]) as runner:
    print(runner(np.load(sys.argv[3])))
"""


def main(bundle_folder: Path) -> None:
    """Print medians over interleaved fresh processes, and the two ratios that matter."""
    bundle = Bundle.open(bundle_folder)
    with tempfile.TemporaryDirectory() as folder:
        commands = _commands(bundle, Path(folder))
        # A file that is new on this machine is tried at its first start.
        for command in commands.values():
            subprocess.run(command, capture_output=True, check=True)
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
        for name, limit in (("Runner", 1.1), ("edgedl run", 1.3)):
            ratios = np.array(times[f"{name}, {backend}"]) / np.array(times[f"raw {backend}"])
            print(f"{name} over a raw script, {backend}: {np.median(ratios):.2f} (limit {limit})")


def _commands(bundle: Bundle, place: Path) -> dict[str, list[str]]:
    edgedl = str(Path(sys.executable).parent / "edgedl")
    commands = {
        "bare interpreter": [sys.executable, "-c", "pass"],
        "edgedl --help": [edgedl, "--help"],
    }
    x = golden_inputs(bundle)[0][:1]
    sample = place / "input.npy"
    np.save(sample, x)
    for backend, raw in ((ORT.runtime, RAW_ORT), (TFLITE.runtime, RAW_TFLITE)):
        artifact = bundle.artifact(f"{backend}-float32")
        file, in_file = str(bundle.folder / artifact.path), str(place / f"{backend}.npy")
        # The raw script takes what the file takes, such as pictures with their channels last.
        np.save(in_file, encode(x, artifact.inputs[0]))
        folder, given = str(bundle.folder), str(sample)
        commands |= {
            f"raw {backend}": [sys.executable, "-c", raw, file, in_file],
            f"Runner, {backend}": [sys.executable, "-c", RUNNER, folder, artifact.name, given],
            f"edgedl run, {backend}": [edgedl, "run", folder, "--input", given, "--artifact",
                                       artifact.name],
        }  # fmt: skip
    return commands


if __name__ == "__main__":
    main(Path(sys.argv[1]))
