"""What each correction of a quantized network brings, in decibels and predictions.

Run as ``python -m benchmarks.quantization.corrections SUBJECT [TEST SAMPLES
[VARIANT...]]``; a variant is named by a part of its name, all are run without. Computed in torch,
on the integers that the ONNX Runtime and TFLite files hold.
"""

import itertools
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from edgedl.compress.encodings.simulate import Simulation
from edgedl.compress.graph.trace import trace
from edgedl.compress.quantize.corrections.correct_bias import CorrectBias
from edgedl.compress.quantize.corrections.equalize import Equalize
from edgedl.compress.quantize.corrections.learn_rounding import LearnRounding
from edgedl.compress.quantize.corrections.match_statistics import MatchStatistics
from edgedl.compress.quantize.corrections.round_weights import RoundWeights
from edgedl.compress.quantize.corrections.smooth import Smooth
from edgedl.compress.quantize.search.mix_precision import MixPrecision
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.stage import Stage
from edgedl.compress.state import ModelState
from edgedl.compress.subject.outputs import as_tuple
from edgedl.tools.jobs.subjects import find_subject
from edgedl.tools.report.table import to_markdown

BATCH = 50
VARIANTS: dict[str, Sequence[Stage]] = {
    "min-max ranges": (QuantizeStatic(observer="minmax"),),
    "ranges of least squared error": (QuantizeStatic(),),
    "and rounded weights": (QuantizeStatic(), RoundWeights()),
    "moving average": (QuantizeStatic(observer="moving_average"),),
    "percentile 99.99": (QuantizeStatic(observer="percentile"),),
    "percentile 99.9": (QuantizeStatic(observer="percentile", percentile=99.9),),
    "entropy": (QuantizeStatic(observer="entropy"),),
    "clipped weights": (QuantizeStatic(weight_observer="mse"),),
    "equalized": (Equalize(), QuantizeStatic()),
    "equalized, rounded weights": (Equalize(), QuantizeStatic(), RoundWeights()),
    "smoothed": (Smooth(), QuantizeStatic()),
    "smoothed, rounded weights": (Smooth(), QuantizeStatic(), RoundWeights()),
    "bias corrected, empirical": (QuantizeStatic(), CorrectBias()),
    "bias corrected, analytic": (QuantizeStatic(), CorrectBias("analytic")),
    "statistics matched": (QuantizeStatic(), MatchStatistics()),
    "learned rounding": (QuantizeStatic(), LearnRounding()),
    "some layers in float": (QuantizeStatic(), MixPrecision()),
    "rounded weights, some layers in float": (QuantizeStatic(), RoundWeights(), MixPrecision()),
    "equalized, rounded weights, some layers in float": (
        Equalize(),
        QuantizeStatic(),
        RoundWeights(),
        MixPrecision(),
    ),
}


def main(reference: str, samples: int = 1000, names: Sequence[str] = ()) -> None:
    """Print a line for every variant, against the float network on the first test samples."""
    torch.set_num_threads(1)
    subject = find_subject(reference)
    graph = trace(subject.module, subject.example_inputs(), subject.free_axes)
    batches = itertools.islice(subject.task.batches("test", BATCH), -(-samples // BATCH))
    inputs = [tuple(torch.tensor(x) for x in batch.inputs) for batch in batches]
    exact = _outputs(graph, inputs)
    lines = []
    for name, stages in VARIANTS.items():
        if names and not any(part in name for part in names):
            continue
        start = time.process_time()
        state = ModelState(subject, graph)
        for stage in stages:
            state = stage.apply(state)
        seconds = time.process_time() - start
        if state.quantized is None:
            raise ValueError(f"'{name}' quantized nothing")
        found = _outputs(Simulation(state.quantized.graph, state.quantized.encodings), inputs)
        agree = float((found.argmax(1) == exact.argmax(1)).float().mean())
        lines.append([name, f"{sqnr(exact, found):.1f}", f"{100 * agree:.1f}", f"{seconds:.0f}"])
        print(" | ".join(lines[-1]), file=sys.stderr, flush=True)
    print(f"{reference}, {len(exact)} test samples")
    print(to_markdown(["variant", "SQNR, dB", "same top-1, %", "CPU s"], lines))


def sqnr(exact: Tensor, found: Tensor) -> float:
    """Return the signal to quantization noise ratio in decibels."""
    return float(10 * torch.log10(exact.square().sum() / (found - exact).square().sum()))


@torch.no_grad()
def _outputs(run: Callable[..., object], inputs: list[tuple[Tensor, ...]]) -> Tensor:
    return torch.cat([as_tuple(run(*x))[0] for x in inputs])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1000, sys.argv[3:])
