"""What operators between int8 convolutions cost, edgedl's files beside the runtimes' own.

Run as ``python -m benchmarks.runtimes.operator_costs [PART OF A NAME ...]
[--without-amx]``. Every network is two 1x1 convolutions of 64 channels of 56x56 pixels, and what
stands between.
"""

import sys
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.runtimes.peers import measure, ratio_of
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.runtime.measure.amx import refuse_amx
from edgedl.runtime.precision import FLOAT32
from edgedl.runtime.task.task import ArrayTask, Samples
from edgedl.tools.report.table import to_markdown

CHANNELS, SIZE, SAMPLES = 64, 56, 32
HEADER = ("between", "ORT", "ORT, its own quantizer", "LiteRT", "LiteRT, its own quantizer")
Between = Callable[["Network", Tensor], Tensor]


class Network(nn.Module):
    """Convolution, operator, convolution; ``side`` is one more, for operators of two operands."""

    def __init__(self, between: Between, channels: int = CHANNELS) -> None:
        """Build it; the operator gives ``channels``."""
        super().__init__()
        self.first, self.side = (nn.Conv2d(CHANNELS, CHANNELS, 1) for _ in range(2))
        self.last = nn.Conv2d(channels, CHANNELS, 1)
        self._between = between

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, 64, 56, 56] to [N, 64, ...]."""
        return self.last(self._between(self, self.first(x)))  # type: ignore[no-any-return]


def gate(x: Tensor) -> Tensor:
    """Return the product with a hard sigmoid per channel, as MobileNetV3 has it."""
    return x * F.hardsigmoid(x.mean((2, 3), keepdim=True))


OPERATORS: dict[str, tuple[Between, int]] = {
    "nothing": (lambda net, x: x, CHANNELS),
    "ReLU": (lambda net, x: F.relu(x), CHANNELS),
    "ReLU beside its input": (lambda net, x: x + net.side(F.relu(x)), CHANNELS),
    "ReLU joined with its input": (lambda net, x: torch.cat([F.relu(x), x], 1), 2 * CHANNELS),
    "ReLU behind a product": (lambda net, x: F.relu(x * net.side(x)), CHANNELS),
    "hard swish": (lambda net, x: F.hardswish(x), CHANNELS),
    "gate of a hard sigmoid": (lambda net, x: gate(x), CHANNELS),
    "x / 3 + 1, part of the layer": (lambda net, x: x / 3 + 1, CHANNELS),
    "sigmoid": (lambda net, x: x.sigmoid(), CHANNELS),
    "sigmoid, then x / 3 + 1": (lambda net, x: x.sigmoid() / 3 + 1, CHANNELS),
    "x / (1 + |y|)": (lambda net, x: x / (1 + net.side(x).abs()), CHANNELS),
    "exp(-|x|)": (lambda net, x: torch.exp(-x.abs()), CHANNELS),
}


def make_subject(name: str) -> Subject:
    """Return a network with seeded random weights, and noise for it."""
    torch.manual_seed(0)
    net = Network(*OPERATORS[name]).eval()

    def noise() -> Samples:
        rng = np.random.default_rng(0)
        maps = rng.standard_normal((SAMPLES, CHANNELS, SIZE, SIZE)).astype(np.float32)
        return Samples((maps,), np.zeros(SAMPLES, np.int64))

    task = ArrayTask(
        "noise",
        {"calibration": noise, "test": noise},
        metric="output",
        score_samples=lambda outputs, labels: np.zeros(len(labels)),
    )
    return Subject(name, net, task)


def main(parts: list[str]) -> None:
    """Print a row per operator: each int8 file's time over its runtime's float32 file's."""
    rows = []
    for name in OPERATORS:
        if parts and not any(part in name for part in parts):
            continue
        outcome = measure(make_subject(name))
        rows.append(
            [name]
            + [
                ratio_of(outcome, f"{runtime}-{file}", f"{runtime}-{FLOAT32}")
                for runtime in (ORT.runtime, TFLITE.runtime)
                for file in ("int8", "peer")
            ]
        )
    print(to_markdown(HEADER, rows))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if "--without-amx" in arguments:
        print(refuse_amx())
        arguments.remove("--without-amx")
    main(arguments)
