"""Measure every artifact of some bundles against one baseline: score, latency, cold start."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from edgedl.runtime.backends.runtimes import open_backend
from edgedl.runtime.child_process import answer, ending, last_line
from edgedl.runtime.errors import BadInputError, FileFailedError, IntegrityError
from edgedl.runtime.measure.device import run_context
from edgedl.runtime.measure.measure import Measurement, Protocol, measure_timed
from edgedl.runtime.measure.statistics import (
    CONFIDENCE,
    block_median,
    certified_percentile,
    mean_score,
    paired_ratio,
    required_samples,
)
from edgedl.runtime.measure.worker import Worker
from edgedl.runtime.precision import FLOAT32
from edgedl.runtime.progress import SILENT, Progress
from edgedl.runtime.runner import Floats, Runner
from edgedl.runtime.task.task import Batch, Scores, Task
from edgedl.tools.bench.drop import drop_record
from edgedl.tools.bench.entries import PARENT, Entry, float32_of, put_baseline_first
from edgedl.tools.bench.recommend import recommend, speed_verdict
from edgedl.tools.bench.repeated_weights import repetition_of, zipped_bytes
from edgedl.tools.bench.result import (
    Candidate,
    ColdStart,
    Latency,
    NoiseFloor,
    NotMeasured,
    Result,
    Score,
    Speedup,
    interval,
)
from edgedl.tools.bench.saving import explain_saving, saving_of

SCORE_BATCH = 100
COLD_STARTS = 3
# Workers of a thread pool spin for a while after a call; let them fall asleep between arms.
POOL_PAUSE_MS = 3.0
AGAIN = "baseline again"

UNMEASURED = (
    NotMeasured("energy", "no power meter is read"),
    NotMeasured("paced and sustained load", "calls follow each other at once (single_stream)"),
    NotMeasured("other devices", "every number is of the machine above"),
)
AMX = (
    NotMeasured(
        "this CPU without AMX tiles",
        "runtimes use them; small int8 networks are often faster with 'edgedl --without-amx'",
    ),
)


@dataclass(frozen=True)
class BenchSettings:
    """What to measure: thread counts (the first decides), the protocol, the drop budget.

    The budget's verdict is of an interval of that confidence.
    """

    threads: tuple[int, ...] = (1, 2)
    protocol: Protocol = field(default_factory=Protocol)
    max_drop_pp: float | None = None
    confidence: float = CONFIDENCE
    cold_starts: int = COLD_STARTS


@dataclass(frozen=True)
class BenchOutcome:
    """The result, and every recorded call in nanoseconds by "threads/name"."""

    result: Result
    samples: dict[str, npt.NDArray[np.int64]]


def bench(
    title: str,
    entries: Sequence[Entry],
    task: Task,
    settings: BenchSettings,
    progress: Progress = SILENT,
    missing: Sequence[NotMeasured] = (),
    network: Scores | None = None,
) -> BenchOutcome:
    """Measure all entries; the first one is the baseline.

    A file that fails is left out, with the reason, and the others are measured without it.

    Args:
        title: of the result.
        entries: what to measure.
        task: whose test split is scored.
        settings: what to measure.
        progress: each score, each thread count and each cold start is a step.
        missing: what could not be measured, and why.
        network: scores [N] of the float torch network, which drops are from; None takes those of
            the baseline.

    Raises:
        InvalidMeasurementError: the clock cannot resolve a call.
        FileFailedError: no file is left.
    """
    scores: dict[str, Scores] = {}
    while True:
        try:
            return _bench(title, entries, task, settings, progress, missing, network, scores)
        except FileFailedError as error:
            left = [entry for entry in entries if entry.name != error.name]
            if not left or len(left) == len(entries):
                raise
            progress.note(f"{error.name} is left out: {error.reason}")
            missing = [*missing, NotMeasured(error.name, error.reason)]
            same = left[0] is entries[0]
            entries = left if same else put_baseline_first(left, any_float=True)


def _bench(
    title: str,
    entries: Sequence[Entry],
    task: Task,
    settings: BenchSettings,
    progress: Progress,
    missing: Sequence[NotMeasured],
    network: Scores | None,
    scores: dict[str, Scores],
) -> BenchOutcome:
    context = run_context()
    for entry in entries:
        progress.step(f"score {entry.name}")
        if entry.name not in scores:
            scores[entry.name] = score_entry(entry, task)
    timings: dict[int, dict[str, Measurement]] = {}
    for threads in settings.threads:
        progress.step(f"time with {threads} thread(s)")
        timings[threads] = time_entries(entries, threads, settings.protocol)
    candidates = []
    before = scores[entries[0].name] if network is None else network
    for entry in entries:
        progress.step(f"cold start {entry.name}")
        candidates.append(_candidate(entry, entries, scores, before, timings, task, settings))
    result = Result(
        title=title,
        run_context=context,
        baseline=entries[0].name,
        candidates=tuple(candidates),
        noise_floor=tuple(_noise_floor(threads, entries[0], timings) for threads in timings),
        recommendation=recommend(candidates, settings.max_drop_pp, _made(entries)),
        not_measured=(*missing, *(AMX if "amx_int8" in context.isa else ()), *UNMEASURED),
        max_drop_pp=settings.max_drop_pp,
        history=tuple(h.stage for h in entries[0].bundle.manifest.history),
        confidence=settings.confidence,
        network=None if network is None else _score(network, task),
    )
    samples = {
        f"{threads}/{name}": m.latency_ns
        for threads, arms in timings.items()
        for name, m in arms.items()
    }
    return BenchOutcome(result, samples)


def _score(scores: Scores, task: Task) -> Score:
    mean = mean_score(scores)
    return Score(task.metric, mean.value, len(scores), interval(mean))


def score_entry(entry: Entry, task: Task) -> Scores:
    """Score the whole test split through the real runtime: float64 [N].

    Raises:
        FileFailedError: the runtime refuses the file, or fails on a sample.
    """
    scores = []
    for batch, outputs in _run(entry, task):
        scores.append(task.score(outputs, batch.labels))
    return np.concatenate(scores)


def _run(entry: Entry, task: Task) -> Iterator[tuple[Batch, tuple[Floats, ...]]]:
    try:
        runner = Runner(entry.bundle, entry.artifact)
    except IntegrityError:
        raise
    except Exception as error:
        # Runtimes raise anything.
        raise FileFailedError(entry.name, str(error)) from error
    with runner:
        for batch in task.batches("test", SCORE_BATCH):
            try:
                outputs = runner(*batch.inputs)
            except BadInputError:
                # What a file does not take is said by edgedl itself.
                raise
            except Exception as error:
                raise FileFailedError(entry.name, str(error)) from error
            yield batch, outputs


def time_entries(
    entries: Sequence[Entry], threads: int, protocol: Protocol
) -> dict[str, Measurement]:
    """Time all entries, and the baseline a second time, in one interleaved measurement.

    Each runtime has a process of its own: two thread pools in one change each other's times.

    Raises:
        FileFailedError: a runtime refuses its file, or crashes.
        InvalidMeasurementError: the clock cannot resolve a call.
    """
    if threads > 1:
        protocol = replace(protocol, pause_ms=POOL_PAUSE_MS)
    named = [(AGAIN, entries[0]), *((e.name, e) for e in entries)]
    with ExitStack() as stack:
        workers = {
            runtime: stack.enter_context(Worker(runtime))
            for runtime in dict.fromkeys(e.artifact.backend for e in entries)
        }
        arms = {
            name: workers[e.artifact.backend].load(name, e.bundle.folder, e.artifact.name, threads)
            for name, e in named
        }
        try:
            return measure_timed(arms, protocol)
        except FileFailedError as error:
            if error.name != AGAIN:
                raise
            raise FileFailedError(entries[0].name, error.reason) from error


def _made(entries: Sequence[Entry]) -> set[str]:
    """Return the precisions of all files made, by name, those that cannot run here included."""
    own = [e.bundle for e in entries if not e.name.startswith(PARENT)]
    return {artifact.precision for bundle in own for artifact in bundle.manifest.artifacts}


def _candidate(
    entry: Entry,
    entries: Sequence[Entry],
    scores: dict[str, Scores],
    before: Scores,
    timings: dict[int, dict[str, Measurement]],
    task: Task,
    settings: BenchSettings,
) -> Candidate:
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
        score=_score(scores[entry.name], task),
        drop=drop_record(
            before,
            scores[entry.name],
            settings.max_drop_pp,
            settings.confidence,
        ),
        latency=tuple(_latency(t, arms[entry.name]) for t, arms in timings.items()),
        speedup=speedup,
        cold_start=_cold_start(entry, settings),
        parity=entry.artifact.parity,
        theoretical_speedup=saving.fewer if saving else None,
        saving_lost=explain_saving(saving, ratio, size_bytes) if saving and ratio else "",
        repeated_weights=repeated,
        zipped_bytes=zipped_bytes(entry.bundle.folder / entry.artifact.path) if repeated else None,
        findings=entry.artifact.findings,
    )


def _latency(threads: int, measurement: Measurement) -> Latency:
    ns = measurement.latency_ns.astype(np.float64)
    median = block_median(ns)
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


def _noise_floor(
    threads: int, baseline: Entry, timings: dict[int, dict[str, Measurement]]
) -> NoiseFloor:
    first, second = (
        timings[threads][n].latency_ns.astype(np.float64) for n in (baseline.name, AGAIN)
    )
    ratio = paired_ratio(first, second)
    return NoiseFloor(threads, ratio.value, interval(ratio))


def _cold_start(entry: Entry, settings: BenchSettings) -> ColdStart | None:
    """Return medians over fresh processes, or None if none were asked for."""
    if settings.cold_starts < 1:
        return None
    folder, name = str(entry.bundle.folder), entry.artifact.name
    command = [sys.executable, "-m", "edgedl.runtime.measure.coldstart", folder, name]
    runs = []
    for _ in range(settings.cold_starts):
        done = subprocess.run(
            [*command, str(settings.threads[0])], capture_output=True, text=True, check=False
        )
        times = answer(done)
        if done.returncode != 0 or times is None:
            raise FileFailedError(
                entry.name,
                f"it fails in a fresh process ({ending(done)}): {last_line(done.stderr)[-200:]}",
            )
        runs.append(times)
    load, first = (
        float(np.median([r[k] for r in runs])) for k in ("load_ms", "first_inference_ms")
    )
    return ColdStart(load, first, len(runs))
