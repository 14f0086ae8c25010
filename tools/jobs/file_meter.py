"""Scores and times of the files that a search for a budget makes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgedl.compress.pipeline import CompressedModel, compress
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.subject.score import score_module
from edgedl.compress.targets.target import REFERENCE, load_target
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.errors import EdgedlError, FileFailedError
from edgedl.runtime.measure.latency_intervals import paired_ratio
from edgedl.runtime.precision import BFLOAT16, FLOAT16, FLOAT32
from edgedl.runtime.progress import Progress
from edgedl.runtime.task.task import Scores, Task
from edgedl.runtime.wording import counted
from edgedl.tools.bench.drop import drop_record
from edgedl.tools.bench.entries import PARENT, Entry, find_entries
from edgedl.tools.bench.run_files import score_entry, time_entries
from edgedl.tools.bench.settings import BenchSettings
from edgedl.tools.jobs.job import Job
from edgedl.tools.jobs.tried_file import TriedFile

FLOAT_NAMES = [precision.name for precision in (FLOAT32, FLOAT16, BFLOAT16)]
Floats = npt.NDArray[np.float64]


class FileMeter:
    """Scores and times files on the samples that choose, against float32 files of a network.

    A runtime whose targets have no float32 file gets one to be timed against; one that takes none
    is held against ONNX Runtime's.
    """

    def __init__(
        self, job: Job, task: Task, settings: BenchSettings, bundle: Bundle, folder: Path
    ) -> None:
        """Score the float network, and find the files that all others are timed against.

        Args:
            job: what is compressed.
            task: whose test split chooses.
            settings: budget, confidence, and how to time.
            bundle: of the network as it was.
            folder: for float32 files that the bundle lacks; must not exist.

        Raises:
            EdgedlError: there is no float32 file at all.
        """
        self._job, self._task, self._settings, self._folder = job, task, settings, folder
        self._reference = score_module(job.subject.module, task)
        self._baselines = self._find_baselines(bundle)

    def measure(self, made: CompressedModel, floats: bool, progress: Progress) -> list[TriedFile]:
        """Score and time the files of a recipe and return them, the best first.

        Args:
            made: with the files.
            floats: whether its float files count even if the network is as it was.
            progress: of the recipe.
        """
        floats = floats or made.parent is not None
        entries = [
            entry
            for entry in find_entries([made.bundle])[0]
            if floats or entry.artifact.precision not in FLOAT_NAMES
        ]
        if not entries:
            return []
        settings, first = self._settings, self._baseline(REFERENCE.runtime)
        own = {e.name: self._baseline(e.artifact.backend) for e in entries}
        scores, times = self._scores_and_times(first, own, entries, progress)
        tried = []
        for entry in (e for e in entries if e.name in times):
            drop = drop_record(
                self._reference, scores[entry.name], settings.max_drop_pp, settings.confidence
            )
            after, artifact = times[entry.name], entry.artifact
            tried.append(
                TriedFile(
                    entry.name,
                    artifact.backend,
                    artifact.precision,
                    drop,
                    paired_ratio(times[own[entry.name].name], after),
                    paired_ratio(times[first.name], after).value,
                    artifact.findings,
                )
            )
        return sorted(tried, key=lambda file: file.rank)

    def times_together(self, files: Sequence[tuple[Bundle, str]]) -> list[float]:
        """Return the latency of files of several recipes over one float32 file, from one run.

        Times of different runs are of different minutes of the machine.

        Args:
            files: bundle and name of each artifact.

        Raises:
            FileFailedError: a file crashes.
        """
        first = self._baseline(REFERENCE.runtime)
        entries = [
            Entry(f"{index}:{name}", bundle, bundle.artifact(name))
            for index, (bundle, name) in enumerate(files)
        ]
        times = self._time([first, *entries])
        return [paired_ratio(times[first.name], times[e.name]).value for e in entries]

    def _time(self, entries: Sequence[Entry]) -> dict[str, Floats]:
        timed = time_entries(entries, self._settings.threads[0], self._settings.protocol)
        return {name: m.latency_ns.astype(np.float64) for name, m in timed.items()}

    def _scores_and_times(
        self,
        first: Entry,
        own: Mapping[str, Entry],
        entries: Sequence[Entry],
        progress: Progress,
    ) -> tuple[dict[str, Scores], dict[str, Floats]]:
        """Return what every file scores, and its latencies beside its baselines' in one run.

        A file that fails on its runtime is left out, with a note.
        """
        left = {entry.name: entry for entry in entries}
        scores: dict[str, Scores] = {}
        progress.note(f"score and time {counted(len(entries), 'file')}")
        while True:
            baselines = {b.name: b for b in (first, *(own[name] for name in left))}
            try:
                for entry in left.values():
                    if entry.name not in scores:
                        scores[entry.name] = score_entry(entry, self._task)
                return scores, self._time([*baselines.values(), *left.values()])
            except FileFailedError as error:
                if error.name not in left:
                    raise
                del left[error.name]
                progress.note(f"{error.name} is left out: {error.reason}")

    def _baseline(self, runtime: str) -> Entry:
        return self._baselines.get(runtime) or next(iter(self._baselines.values()))

    def _find_baselines(self, bundle: Bundle) -> dict[str, Entry]:
        """Return the float32 file that the files of each runtime are timed against."""
        targets = self._job.targets
        have = {REFERENCE.runtime, *(t.runtime for t in targets if t.has(FLOAT32))}
        lacking = sorted({target.runtime for target in targets} - have)
        entries = find_entries([bundle])[0]
        if lacking:
            self._folder.mkdir()
            floats = load_recipe("float")
            missing = tuple(load_target(name) for name in lacking)
            made = compress(self._job.subject, floats, missing, self._folder, only=(FLOAT32,))
            entries = [*find_entries([made.bundle])[0], *entries]
        return {
            runtime: replace(entry, name=f"{PARENT}{entry.name}")
            for runtime, entry in find_baselines(entries).items()
        }


def find_baselines(entries: Sequence[Entry]) -> Mapping[str, Entry]:
    """Return what files of each runtime are timed against: a float32 file, its own or the first.

    Raises:
        EdgedlError: there is no float32 file at all.
    """
    floats = {e.artifact.backend: e for e in entries if e.artifact.kind is FLOAT32}
    if not floats:
        raise EdgedlError("no float32 file runs on this machine, so there is no baseline for times")
    first = floats.get(REFERENCE.runtime) or next(iter(floats.values()))
    return {e.artifact.backend: floats.get(e.artifact.backend, first) for e in entries}
