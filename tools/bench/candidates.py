"""The record of a measured file."""

from collections.abc import Sequence

import numpy as np

from edgedl.runtime.backends.runtimes import open_backend
from edgedl.runtime.measure.device import run_context
from edgedl.runtime.measure.latency_intervals import (
    certified_percentile,
    paired_ratio,
    required_samples,
    typical_latency,
)
from edgedl.runtime.measure.measure import Measurement
from edgedl.runtime.measure.score_intervals import mean_score
from edgedl.runtime.precision import FLOAT32
from edgedl.runtime.task.task import Scores, Task
from edgedl.tools.bench.drop import drop_record
from edgedl.tools.bench.entries import Entry, float32_of
from edgedl.tools.bench.recommend import speed_verdict
from edgedl.tools.bench.repeated_weights import repetition_of, zipped_bytes
from edgedl.tools.bench.result import (
    Candidate,
    Latency,
    NoiseFloor,
    Score,
    Speedup,
    interval,
)
from edgedl.tools.bench.run_files import AGAIN, cold_start
from edgedl.tools.bench.saving import explain_saving, saving_of
from edgedl.tools.bench.settings import BenchSettings


def score_record(scores: Scores, task: Task) -> Score:
    """Return the record of the scores [N] of a split."""
    mean = mean_score(scores)
    return Score(task.metric, mean.value, len(scores), interval(mean))


def candidate_of(
    entry: Entry,
    entries: Sequence[Entry],
    scores: Scores,
    before: Scores,
    timings: dict[int, dict[str, Measurement]],
    task: Task,
    settings: BenchSettings,
) -> Candidate:
    """Return the record of a file.

    Args:
        entry: the file.
        entries: all that were measured, the baseline first.
        scores: of the file [N].
        before: that its drop is from [N].
        timings: by thread count, then by name.
        task: that was scored.
        settings: of the measurement.

    Raises:
        FileFailedError: it fails in a fresh process.
    """
    size_bytes = entry.bundle.manifest.files[entry.artifact.path].size_bytes
    history = entry.bundle.manifest.history
    repeated = repetition_of(history, entry.artifact.kind)
    speedup = tuple(_speedup(t, arms, entry, entries) for t, arms in timings.items())
    saving = saving_of(history, entry.artifact.backend, run_context().isa)
    # Other precisions have other kernels than the parent's file.
    ratio = speedup[0].same_runtime_ratio if entry.artifact.kind is FLOAT32 else None
    return Candidate(
        name=entry.name,
        backend=entry.artifact.backend,
        precision=entry.artifact.precision,
        runtime=open_backend(entry.artifact.backend).available().detail,
        size_bytes=size_bytes,
        score=score_record(scores, task),
        drop=drop_record(
            before,
            scores,
            settings.max_drop_pp,
            settings.confidence,
        ),
        latency=tuple(_latency(t, arms[entry.name]) for t, arms in timings.items()),
        speedup=speedup,
        cold_start=cold_start(entry, settings),
        parity=entry.artifact.parity,
        theoretical_speedup=saving.fewer if saving else None,
        saving_lost=explain_saving(saving, ratio, size_bytes) if saving and ratio else "",
        repeated_weights=repeated,
        zipped_bytes=zipped_bytes(entry.bundle.folder / entry.artifact.path) if repeated else None,
        findings=entry.artifact.findings,
    )


def _latency(threads: int, measurement: Measurement) -> Latency:
    ns = measurement.latency_ns.astype(np.float64)
    median = typical_latency(ns)
    p90, p99 = (certified_percentile(ns, p) for p in (0.90, 0.99))
    return Latency(
        median_ms=median.value / 1e6,
        ci95=interval(median, 1e-6),
        p90_ms=None if p90 is None else p90 / 1e6,
        p99_ms=None if p99 is None else p99 / 1e6,
        p90_needs=required_samples(0.90),
        p99_needs=required_samples(0.99),
        n=ns.size,
        threads=threads,
        scenario="single_stream",
        settled=measurement.settled,
    )


def _speedup(
    threads: int, arms: dict[str, Measurement], entry: Entry, entries: Sequence[Entry]
) -> Speedup:
    own = arms[entry.name].latency_ns.astype(np.float64)
    ratio = paired_ratio(arms[entries[0].name].latency_ns.astype(np.float64), own)
    float32 = float32_of(entry, entries)
    same = paired_ratio(arms[float32.name].latency_ns.astype(np.float64), own) if float32 else None
    return Speedup(
        ratio=ratio.value,
        ci95=interval(ratio),
        threads=threads,
        verdict=speed_verdict(ratio.lo, ratio.hi),
        same_runtime_ratio=same.value if same else None,
        same_runtime_ci95=interval(same) if same else None,
    )


def noise_floor(
    threads: int, baseline: Entry, timings: dict[int, dict[str, Measurement]]
) -> NoiseFloor:
    """Return how the baseline compares with a second session of itself."""
    first, second = (
        timings[threads][n].latency_ns.astype(np.float64) for n in (baseline.name, AGAIN)
    )
    ratio = paired_ratio(first, second)
    return NoiseFloor(threads, ratio.value, interval(ratio))
