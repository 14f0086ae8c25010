"""What calibrating a ResNet-18 at 224x224 costs: seconds, and memory beside float32 inference.

Run as ``python -m benchmarks.quantization.calibration``; inference and calibration run
in processes of their own, on the same 512 pictures of noise, drawn batch by batch.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import torch

from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.state import ModelState, begin
from edgedl.compress.subject.subject import Subject
from edgedl.models.resnet import ResNet
from edgedl.runtime.task.task import ArrayTask, Batch

SAMPLES, BATCH, THREADS = 512, 32, 2


class Noise(ArrayTask):
    """Pictures of normal noise, float32 [B, 3, 224, 224], that are never all in memory."""

    def batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """Yield ``SAMPLES`` pictures, the same for every split."""
        rng = np.random.default_rng(0)
        for _ in range(0, SAMPLES, batch_size):
            pictures = rng.standard_normal((batch_size, 3, 224, 224), np.float32)
            yield Batch((pictures,), np.zeros(batch_size, np.int64))


def infer(state: ModelState) -> None:
    """Run the float32 network on every picture."""
    with torch.no_grad():
        for batch in state.subject.task.batches("calibration", BATCH):
            state.graph(torch.from_numpy(batch.inputs[0]))


def quantize(state: ModelState) -> None:
    """Quantize the network, calibrated on every picture."""
    QuantizeStatic(samples=SAMPLES, batch_size=BATCH).apply(state)


def measure(what: str) -> dict[str, float]:
    """Return the seconds that one of the two takes, and the peak resident memory in MB."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    subject = Subject("resnet18-random", ResNet(18).eval(), Noise("noise", {}))
    state = begin(subject)
    start = time.perf_counter()
    {"inference": infer, "calibration": quantize}[what](state)
    seconds = time.perf_counter() - start
    return {"s": seconds, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    """Print a line for each, and the ratio of their peaks."""
    found = {}
    for what in ("inference", "calibration"):
        command = [sys.executable, "-m", "benchmarks.quantization.calibration", what]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[what] = json.loads(done.stdout.splitlines()[-1])
        seconds, peak = found[what]["s"], found[what]["mb"]
        print(f"{what} of {SAMPLES} pictures, batch {BATCH}, {THREADS} threads: {seconds:.0f} s, "
              f"peak {peak:.0f} MB")  # fmt: skip
    print(f"memory ratio {found['calibration']['mb'] / found['inference']['mb']:.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:
        main()
