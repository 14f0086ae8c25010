"""Run files: their scores, their times side by side, their cold starts."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from edgedl.runtime.backend import Array
from edgedl.runtime.child_process import answer, ending, last_line
from edgedl.runtime.errors import FileFailedError, IntegrityError
from edgedl.runtime.loaded_model import LoadedModel
from edgedl.runtime.measure.measure import Measurement, Protocol, measure_loads
from edgedl.runtime.measure.worker import Worker
from edgedl.runtime.steps import run_sequences
from edgedl.runtime.task.batch_size import fitting_batches
from edgedl.runtime.task.task import Batch, Scores, Task
from edgedl.tools.bench.entries import Entry
from edgedl.tools.bench.result import (
    ColdStart,
)
from edgedl.tools.bench.settings import BenchSettings

# Workers of a thread pool spin for a while after a call; let them fall asleep between arms.
POOL_PAUSE_MS = 3.0
AGAIN = "baseline again"


def score_entry(entry: Entry, task: Task) -> Scores:
    """Score the whole test split through the real runtime: float64 [N].

    Raises:
        FileFailedError: the runtime refuses the file, or fails on a sample.
    """
    scores = []
    for batch, outputs in _run(entry, task):
        scores.append(task.score(outputs, batch.labels))
    return np.concatenate(scores)


def _run(entry: Entry, task: Task) -> Iterator[tuple[Batch, tuple[Array, ...]]]:
    try:
        runner = LoadedModel(entry.bundle, entry.artifact)
    except IntegrityError:
        raise
    except Exception as error:
        # Runtimes raise anything.
        raise FileFailedError(entry.name, str(error)) from error
    states = entry.bundle.manifest.states
    with runner:
        for batch in fitting_batches(task, "test"):
            try:
                outputs = (
                    run_sequences(runner, states, batch.inputs) if states else runner(*batch.inputs)
                )
            except FileFailedError as error:
                raise FileFailedError(entry.name, error.reason) from error
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
            return measure_loads(arms, protocol)
        except FileFailedError as error:
            if error.name != AGAIN:
                raise
            raise FileFailedError(entries[0].name, error.reason) from error


def cold_start(entry: Entry, settings: BenchSettings) -> ColdStart | None:
    """Return medians over fresh processes, or None if none were asked for.

    Raises:
        FileFailedError: the file fails in one.
    """
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
    return ColdStart(load, first, len(runs), tuple(runs[0]["fallbacks"]))
