"""Calibration memory against the number of samples.

Run as ``python -m benchmarks.quantization.memory``; every count runs in a process of
its own.
"""

import json
import resource
import subprocess
import sys

from edgedl.compress.encodings.calibrate import observe
from edgedl.compress.encodings.observers import BINS
from edgedl.compress.graph.trace import trace
from edgedl.compress.subject.calibration import calibration_inputs
from edgedl.tools.jobs.subjects import find_subject

MODEL = "resnet8-fashion_mnist"
COUNTS = (128, 512, 2048, 8192)


def measure(samples: int) -> dict[str, float]:
    """Return the peak resident memory in MB and the bytes of all histograms."""
    subject = find_subject(MODEL)
    graph = trace(subject.module, subject.example_inputs())
    # The whole split is in memory before; what calibration adds is what is asked for.
    next(iter(subject.task.batches("calibration", 32)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    histograms = observe(graph, calibration_inputs(subject.task, samples, 32))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    element_bytes = next(iter(histograms.values())).counts.element_size()
    return {
        "histogram_bytes": len(histograms) * BINS * element_bytes,
        "peak_mb": after / 1024,
        "added_mb": (after - before) / 1024,
    }


def main() -> None:
    """Print one line per sample count."""
    for count in COUNTS:
        command = [sys.executable, "-m", "benchmarks.quantization.memory", str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{count} samples: histograms {found['histogram_bytes']} bytes, peak "
            f"{found['peak_mb']:.0f} MB, of it {found['added_mb']:.0f} MB during calibration"
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
    else:
        main()
