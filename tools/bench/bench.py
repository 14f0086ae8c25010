"""Measure every artifact of some bundles against one baseline: score, latency, cold start."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgedl.runtime.errors import FileFailedError
from edgedl.runtime.measure.device import run_context
from edgedl.runtime.measure.latency_intervals import paired_ratio
from edgedl.runtime.measure.measure import Measurement
from edgedl.runtime.progress import SILENT, Progress
from edgedl.runtime.task.task import Scores, Task
from edgedl.tools.bench.candidates import candidate_of, noise_floor, score_record
from edgedl.tools.bench.entries import PARENT, Entry, put_baseline_first
from edgedl.tools.bench.recommend import ALIKE, recommend
from edgedl.tools.bench.result import Candidate, NotMeasured, Result
from edgedl.tools.bench.run_files import score_entry, time_entries
from edgedl.tools.bench.settings import BenchSettings

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
        progress.step("score", entry.name)
        if entry.name not in scores:
            scores[entry.name] = score_entry(entry, task)
    timings: dict[int, dict[str, Measurement]] = {}
    for threads in settings.threads:
        progress.step("time", f"with {threads} thread(s)")
        timings[threads] = time_entries(entries, threads, settings.protocol)
    candidates = []
    before = scores[entries[0].name] if network is None else network
    for entry in entries:
        progress.step("cold start", entry.name)
        candidates.append(
            candidate_of(entry, entries, scores[entry.name], before, timings, task, settings)
        )
    result = Result(
        title=title,
        run_context=context,
        baseline=entries[0].name,
        candidates=tuple(candidates),
        noise_floor=tuple(noise_floor(threads, entries[0], timings) for threads in timings),
        recommendation=recommend(
            candidates,
            settings.max_drop_pp,
            _made(entries),
            slower_in(timings[settings.threads[0]]),
        ),
        not_measured=(*missing, *(AMX if "amx_int8" in context.isa else ()), *UNMEASURED),
        max_drop_pp=settings.max_drop_pp,
        history=tuple(h.stage for h in entries[0].bundle.manifest.history),
        confidence=settings.confidence,
        network=None if network is None else score_record(network, task),
    )
    samples = {
        f"{threads}/{name}": m.latency_ns
        for threads, arms in timings.items()
        for name, m in arms.items()
    }
    return BenchOutcome(result, samples)


def slower_in(times: Mapping[str, Measurement]) -> Callable[[Candidate, Candidate], bool]:
    """Return what says whether one file may be slower than another, by rounds both were in."""

    def may_be_slower(one: Candidate, other: Candidate) -> bool:
        own, base = (times[c.name].latency_ns.astype(np.float64) for c in (one, other))
        return paired_ratio(base, own).hi > 1 + ALIKE

    return may_be_slower


def _made(entries: Sequence[Entry]) -> set[str]:
    """Return the precisions of all files made, by name, those that cannot run here included."""
    own = [e.bundle for e in entries if not e.name.startswith(PARENT)]
    return {artifact.precision for bundle in own for artifact in bundle.manifest.artifacts}
