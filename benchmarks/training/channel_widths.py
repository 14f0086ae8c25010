"""How fast a stack of convolutions is by its width: which numbers of channels the kernels like.

Run as ``python -m benchmarks.training.channel_widths [SIDE]``. Four 3x3 convolutions
of each width, with ReLU, on a picture of SIDE x SIDE; files of both runtimes in float32 and int8,
one thread, interleaved. Widths are compared by their multiply-accumulates a second, against the
widest.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from edgedl.compress.graph.run import count_macs
from edgedl.compress.latency.timing import load_arm, time_arms
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.state import ModelState, begin
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.compress.targets.target import Target
from edgedl.runtime.measure.estimate import Estimate
from edgedl.runtime.measure.measure import Arm, Protocol
from edgedl.runtime.precision import FLOAT32, INT8, Precision
from edgedl.runtime.task.task import ArrayTask, Samples
from edgedl.tools.report.table import to_markdown

WIDTHS = (8, 12, 13, 16, 20, 24, 27, 28, 32, 40, 48, 56, 64)
SIDE = 16
DEPTH = 4
SAMPLES = 32
TARGETS = (ORT, TFLITE)
PRECISIONS = (FLOAT32, INT8)


@dataclass(frozen=True)
class WidthTime:
    """A width's measurement.

    Attributes:
        width: channels of every layer.
        latency: over that of the widest.
        throughput: multiply-accumulates a second over those of the widest.
    """

    width: int
    latency: Estimate
    throughput: float


def stack(width: int) -> nn.Module:
    """Return convolutions of one width, [N, width, H, W] to the same shape."""
    torch.manual_seed(0)
    layers = [m for _ in range(DEPTH) for m in (nn.Conv2d(width, width, 3, 1, 1), nn.ReLU())]
    return nn.Sequential(*layers).eval()


def state_of(width: int, side: int) -> ModelState:
    """Return the traced stack with a task of noise."""

    def samples() -> Samples:
        noise = np.random.default_rng(0).normal(size=(SAMPLES, width, side, side))
        return Samples((noise.astype(np.float32),), np.zeros(SAMPLES, np.int64))

    task = ArrayTask(
        name="noise",
        splits={"calibration": samples, "test": samples},
        metric="output",
        score_samples=lambda outputs, labels: np.zeros(len(labels)),
    )
    subject = Subject(f"width{width}", stack(width), task)
    return begin(subject)


def time_widths(
    widths: Sequence[int],
    side: int,
    target: Target,
    precision: Precision,
    protocol: Protocol,
) -> list[WidthTime]:
    """Time every width against the last, interleaved, one thread, batch 1."""
    arms: dict[str, Arm] = {}
    macs: dict[int, int] = {}
    for width in widths:
        state = state_of(width, side)
        one = tuple(x[:1] for x in state.subject.example_inputs())
        macs[width] = count_macs(state.subject.module, one)
        if precision is INT8:
            state = QuantizeStatic(SAMPLES, SAMPLES, "minmax").apply(state)
        arms[str(width)] = load_arm(state, target, precision)
    timings = time_arms(arms, protocol)
    widest = widths[-1]
    found = []
    for width in widths:
        latency = timings.ratio(str(widest), str(width))
        found.append(WidthTime(width, latency, macs[width] / macs[widest] / latency.value))
    return found


def main(side: int) -> None:
    """Print a table per runtime and precision."""
    torch.set_num_threads(1)
    for target in TARGETS:
        for precision in PRECISIONS:
            found = time_widths(WIDTHS, side, target, precision, Protocol())
            lines = [
                [
                    str(t.width),
                    f"{t.latency.value:.3f}",
                    f"{t.latency.lo:.3f} to {t.latency.hi:.3f}",
                    f"{t.throughput:.2f}",
                ]
                for t in found
            ]
            print(
                f"{DEPTH} convolutions 3x3 at {side}x{side}, {target.name}, {precision}, one thread"
            )
            header = ["width", f"latency over {WIDTHS[-1]}", "95 % interval", "MAC/s over it"]
            print(to_markdown(header, lines))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else SIDE)
