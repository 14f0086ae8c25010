"""Static int8 against float32 on a ResNet-18 at 224x224 (random weights: speed only).

Run as ``python -m edgedl.tools.benchmarks.resnet18``.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

from edgedl.compress.pack import compress
from edgedl.compress.recipe_file import load_recipe
from edgedl.compress.subject import Subject
from edgedl.models.resnet import ResNet
from edgedl.runtime.task import ArrayTask, Samples
from edgedl.tools.bench import BenchSettings, bench
from edgedl.tools.entries import find_entries, put_baseline_first
from edgedl.tools.report.table import result_markdown

SAMPLES = 32


def noise(seed: int) -> Samples:
    """Return normal noise float32 [32, 3, 224, 224] with labels of no meaning."""
    rng = np.random.default_rng(seed)
    pictures = rng.standard_normal((SAMPLES, 3, 224, 224)).astype(np.float32)
    return Samples((pictures,), np.zeros(SAMPLES, np.int64))


def make_subject() -> Subject:
    """Return the network with seeded random weights and settled batch-norm statistics."""
    torch.manual_seed(0)
    net = ResNet(18).train()
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(8, 3, 224, 224))
    task = ArrayTask("noise", {"calibration": lambda: noise(1), "test": lambda: noise(2)})
    return Subject("resnet18-random", net.eval(), task)


def main() -> None:
    """Print the table; the scores on noise mean nothing."""
    with tempfile.TemporaryDirectory() as folder:
        made = compress(
            make_subject(), load_recipe("static_w8c_a8"), ("ort", "tflite"), Path(folder)
        )
        entries, missing = find_entries([made.bundle])
        outcome = bench(
            "resnet18-random",
            put_baseline_first(entries),
            make_subject().task,
            BenchSettings(threads=(1,), cold_starts=0),
            missing=missing,
        )
    print(result_markdown(outcome.result))


if __name__ == "__main__":
    main()
