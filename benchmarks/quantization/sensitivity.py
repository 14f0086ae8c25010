"""Layers by the damage they do, how well their noises add up, and what the worst cost in float.

Run as ``python -m benchmarks.quantization.sensitivity SUBJECT [SAMPLES] [RUNTIME
...]``. Damage is computed in torch on calibration samples, on the integers that the ONNX Runtime
and TFLite files hold; latency is measured on each RUNTIME that is named, one thread,
interleaved.
"""

import sys
import time
from collections.abc import Sequence

import torch

from edgedl.compress.graph.trace import trace
from edgedl.compress.quantize.corrections.round_weights import RoundWeights
from edgedl.compress.quantize.refinement import quantized_by
from edgedl.compress.quantize.search.float_layers import keep_float, measure_damage, restore_weights
from edgedl.compress.quantize.search.layer_cost import ALL_INT8, WHOLLY_FLOAT, PrecisionTimer
from edgedl.compress.quantize.search.noise_terms import Roundings, measure_noise_terms
from edgedl.compress.quantize.search.sensitivity import Sensitivity, measure_sensitivity
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.stage import Stage
from edgedl.compress.state import ModelState
from edgedl.compress.targets.target import load_target
from edgedl.tools.jobs.subjects import find_subject
from edgedl.tools.report.table import to_markdown, with_interval

TOP, BATCH = 5, 16
VARIANTS: dict[str, Sequence[Stage]] = {
    "rounded to nearest": (QuantizeStatic(),),
    "rounded with data": (QuantizeStatic(), RoundWeights()),
}


def main(reference: str, samples: int = 128, runtimes: Sequence[str] = ()) -> None:
    """Print the tables of one subject, without and with ``round_weights``."""
    torch.set_num_threads(1)
    subject = find_subject(reference)
    graph = trace(subject.module, subject.example_inputs(), subject.free_axes)
    for name, stages in VARIANTS.items():
        state = ModelState(subject, graph)
        for stage in stages:
            state = stage.apply(state)
        print(f"\n{reference}, weights {name}, {samples} calibration samples")
        start = time.process_time()
        network = quantized_by(state, "sensitivity")
        found = measure_sensitivity(graph, network, subject.task, samples, BATCH)
        seconds = time.process_time() - start
        roundings = measure_noise_terms(graph, network, subject.task, samples, BATCH)
        _print_layers(found, seconds, roundings)
        _print_float(state, found, roundings, samples)
    worst = [s.layer.node.name for s in found.layers if s.layer.node is not None][:3]
    for runtime in runtimes:
        _print_latency(state, worst, runtime)


def _print_layers(found: Sensitivity, seconds: float, roundings: Roundings) -> None:
    print(
        f"all int8 {found.int8.sqnr_db:.2f} dB; {len(found.layers)} layers in {seconds:.0f} CPU s"
    )
    parts = sum(s.only.noise for s in found.layers) / found.int8.noise
    rounds = roundings.predicted_noise / found.int8.noise
    print(f"sum over the measured noise: of layers {parts:.3f}, of roundings {rounds:.3f}")
    lines = [
        [
            s.layer.name,
            s.layer.operator,
            f"{s.only.sqnr_db:.1f}",
            f"{s.all_but.sqnr_db:.2f}",
            "" if s.kept_float is None else f"{s.kept_float.sqnr_db:.2f}",
            f"{100 * (s.only.score - found.exact.score):+.2f}",
        ]
        for s in found.layers[:TOP]
    ]
    print(to_markdown(["layer", "operator", "only", "all but", "kept float", "points"], lines))


def _print_float(state: ModelState, found: Sensitivity, roundings: Roundings, samples: int) -> None:
    """Print what the worst layers bring in float: predicted, measured, with either weights."""
    network, task = quantized_by(state, "sensitivity"), state.subject.task
    worst = [s.layer.node.name for s in found.layers if s.layer.node is not None]
    lines = []
    for count in range(4):
        kept = frozenset(worst[:count])
        mixed = keep_float(network, kept)
        restored = restore_weights(state.graph, mixed, kept)
        measured = [
            measure_damage(state.graph, n, task, samples, BATCH).sqnr_db for n in (mixed, restored)
        ]
        predicted = roundings.predicted_sqnr_db(kept)
        lines.append([str(count), f"{predicted:.2f}", *(f"{db:.2f}" for db in measured)])
    print(to_markdown(["worst in float", "predicted", "own weights", "original weights"], lines))


def _print_latency(state: ModelState, worst: Sequence[str], runtime: str) -> None:
    """Print latency ratios with the worst layers in float, and the noise floor."""
    files = {f"worst {n}": frozenset(worst[:n]) for n in range(1, len(worst) + 1)}
    timer = PrecisionTimer(state, load_target(runtime))
    found = timer.time({"int8": ALL_INT8, "int8 again": ALL_INT8, "float32": WHOLLY_FLOAT, **files})
    lines = []
    for name in found.latency_ns:
        ratio, ms = found.ratio("int8", name), found.median_ms(name)
        text = with_interval(ratio.value, (ratio.lo, ratio.hi), ".3f")
        lines.append([name, with_interval(ms.value, (ms.lo, ms.hi), ".3f"), text])
    print(f"\n{runtime}, {', '.join(worst)} in float, one thread, batch 1")
    print(to_markdown(["file", "median ms", "ratio to int8"], lines))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 128, sys.argv[3:])
