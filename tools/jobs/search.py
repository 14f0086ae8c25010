"""Look for the recipe with the fastest file that meets an accuracy budget."""

import shutil
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from edgedl.compress.graph.trace import trace
from edgedl.compress.pipeline import CompressedModel, compress
from edgedl.compress.recipe.default_recipe import default_recipe
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.recipe.store.store import StageStore
from edgedl.compress.subject.score import score_module
from edgedl.compress.targets.target import REFERENCE, load_target
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.errors import EdgedlError, FileFailedError
from edgedl.runtime.measure.latency_intervals import paired_ratio
from edgedl.runtime.precision import BFLOAT16, FLOAT16, FLOAT32
from edgedl.runtime.progress import SILENT, Progress
from edgedl.runtime.task.task import Scores, Task
from edgedl.runtime.wording import about, counted
from edgedl.tools.bench.drop import drop_record
from edgedl.tools.bench.entries import PARENT, Entry, find_entries
from edgedl.tools.bench.result import Attempt, Search, interval
from edgedl.tools.bench.run_files import score_entry, time_entries
from edgedl.tools.bench.settings import BenchSettings
from edgedl.tools.jobs.job import Job
from edgedl.tools.jobs.plan import plan
from edgedl.tools.jobs.search_options import Option, next_pruned, options, timed_on, why_not
from edgedl.tools.jobs.tried_file import TriedFile

COUNTING_BATCH = 500
FLOATS = (FLOAT32, FLOAT16, BFLOAT16)
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """What a search led to: a compressed model in a folder, and how."""

    made: CompressedModel
    search: Search


class RecipeSearch:
    """Tries recipes, the cheapest first, while a faster file may still fit; keeps the fastest.

    A recipe fits when a file of it is certainly faster than its runtime's float32 file and its
    drop is certainly within the budget. The first one is the default recipe, so that the search
    ends with no slower file than a job without a budget. A recipe that trains is priced before it
    begins. A runtime whose targets have no float32 file gets one to be timed against, which is not
    kept; one that takes none is held against ONNX Runtime's.
    """

    def __init__(
        self,
        job: Job,
        task: Task,
        settings: BenchSettings,
        folder: Path,
        progress: Progress,
        store: StageStore | None = None,
    ) -> None:
        """Take what is searched for.

        Args:
            job: what is compressed; the test split of its task is not touched.
            task: whose test split chooses.
            settings: budget, confidence, and how to time.
            folder: of the bundle; must not exist. Others stand beside it meanwhile.
            progress: each recipe is a step.
            store: where results of stages are kept; None keeps nothing.
        """
        self._job, self._subject, self._targets = job, job.subject, job.targets
        self._task, self._settings, self._folder = task, settings, folder
        self._progress, self._store = progress, store
        self._start = time.monotonic()
        self._attempts: list[Attempt] = []
        self._made: dict[Option, CompressedModel] = {}
        self._found: dict[Option, list[TriedFile]] = {}
        self._reference: Scores | None = None
        self._baselines: dict[str, Entry] = {}

    def run(self) -> Found:
        """Search, and leave the chosen bundle in the folder.

        Raises:
            EdgedlError: not even the files of the default recipe can be made.
        """
        subject = self._subject
        graph = trace(subject.module, subject.example_inputs(), subject.free_axes)
        waiting = deque(options(default_recipe(graph)[0]))
        first = waiting[0]
        while waiting:
            option = timed_on(waiting.popleft(), self._found)
            reason = why_not(option, subject, self._found) or self._too_long(option)
            if reason:
                self._attempts.append(_without_file(option.name, f"not tried: {reason}"))
                continue
            self._try(option, must_work=option is first)
            following = next_pruned(option, self._found.get(option, []))
            if following is not None:
                waiting.append(following)
        ranked = [(f.rank, o) for o, files in self._found.items() for f in files if f.faster]
        chosen = min(ranked, key=lambda pair: pair[0])[1] if ranked else first
        met = any(file.fits for file in self._found[chosen])
        samples = sum(len(b.labels) for b in self._task.batches("test", COUNTING_BATCH))
        found = Search(tuple(self._attempts), chosen.name, met, samples)
        return Found(self._keep(chosen), found)

    def _try(self, option: Option, must_work: bool) -> None:
        """Make the files of a recipe and measure them."""
        self._progress.step("try", option.name)
        start = time.monotonic()
        place = self._folder.with_name(f"{self._folder.name}-{len(self._made)}")
        place.mkdir()
        try:
            made = compress(
                self._subject,
                option.recipe,
                self._targets,
                place,
                store=self._store,
                progress=self._progress.of(option.name),
            )
            if must_work:
                self._baselines = self._find_baselines(made.bundle)
                self._reference = score_module(self._subject.module, self._task)
        except BaseException as error:
            shutil.rmtree(place)
            if must_work or not isinstance(error, EdgedlError):
                raise
            self._attempts.append(_without_file(option.name, str(error)))
            return
        self._made[option] = made
        self._found[option] = self._measured(made, all_floats=must_work)
        attempt = _record(option.name, made, self._found[option])
        taken = round(time.monotonic() - start, 1)
        self._attempts.append(msgspec.structs.replace(attempt, seconds=taken))

    def _too_long(self, option: Option) -> str:
        """Say that a recipe takes longer than is left; "" where it does not, or trains nothing."""
        minutes = self._job.search_minutes
        left = 60 * minutes - (time.monotonic() - self._start)
        if not self._found:
            return ""
        seconds = 0.0
        if option.trains and option.recipe is not None and left > 0:
            self._progress.step("estimate", option.name)
            try:
                lines = plan(replace(self._job, recipe=option.recipe), self._store, SILENT)
            except EdgedlError as error:
                return str(error)
            seconds = sum(line.seconds or 0.0 for line in lines)
        if seconds <= left:
            return ""
        takes = f"it takes {about(seconds)}" if seconds else "there is no time left"
        return f"{takes}, {about(max(0.0, left))} of {minutes:g} min are left (--search-minutes)"

    def _find_baselines(self, bundle: Bundle) -> dict[str, Entry]:
        """Return the float32 file that the files of each runtime are timed against."""
        have = {REFERENCE.runtime, *(t.runtime for t in self._targets if t.has(FLOAT32))}
        lacking = sorted({target.runtime for target in self._targets} - have)
        entries = find_entries([bundle])[0]
        if lacking:
            place = self._folder.with_name(f"{self._folder.name}-float32")
            place.mkdir()
            floats = load_recipe("float")
            missing = tuple(load_target(name) for name in lacking)
            made = compress(self._subject, floats, missing, place, only=(FLOAT32,))
            entries = [*find_entries([made.bundle])[0], *entries]
        return {
            runtime: replace(entry, name=f"{PARENT}{entry.name}")
            for runtime, entry in find_baselines(entries).items()
        }

    def _measured(self, made: CompressedModel, all_floats: bool) -> list[TriedFile]:
        """Score and time the files of a recipe and return them, the best first.

        Float files are those of every other recipe, unless the network was cut or trained: only
        the first recipe's count, but its float32 files, which the others are timed against.
        """
        changed = made.parent is not None
        entries = [
            entry
            for entry in find_entries([made.bundle])[0]
            if changed
            or entry.artifact.kind not in FLOATS
            or (all_floats and entry.artifact.kind is not FLOAT32)
        ]
        if not entries or self._reference is None:
            return []
        settings, first = self._settings, self._baseline(REFERENCE.runtime)
        own = {e.name: self._baseline(e.artifact.backend) for e in entries}
        scores, times = self._scores_and_times(first, own, entries)
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

    def _scores_and_times(
        self, first: Entry, own: Mapping[str, Entry], entries: Sequence[Entry]
    ) -> tuple[dict[str, Scores], dict[str, Floats]]:
        """Return what every file scores, and its latencies beside its baselines' in one run.

        A file that fails on its runtime is left out, with a note.
        """
        left = {entry.name: entry for entry in entries}
        scores: dict[str, Scores] = {}
        self._progress.note(f"score and time {counted(len(entries), 'file')}")
        while True:
            baselines = {b.name: b for b in (first, *(own[name] for name in left))}
            try:
                for entry in left.values():
                    if entry.name not in scores:
                        scores[entry.name] = score_entry(entry, self._task)
                timed = time_entries(
                    [*baselines.values(), *left.values()],
                    self._settings.threads[0],
                    self._settings.protocol,
                )
            except FileFailedError as error:
                if error.name not in left:
                    raise
                del left[error.name]
                self._progress.note(f"{error.name} is left out: {error.reason}")
                continue
            return scores, {n: m.latency_ns.astype(np.float64) for n, m in timed.items()}

    def _baseline(self, runtime: str) -> Entry:
        return self._baselines.get(runtime) or next(iter(self._baselines.values()))

    def _keep(self, chosen: Option) -> CompressedModel:
        """Move the chosen bundle to its place and remove the others."""
        for option, made in self._made.items():
            if option != chosen:
                shutil.rmtree(made.bundle.folder)
        floats = self._folder.with_name(f"{self._folder.name}-float32")
        if floats.exists():
            shutil.rmtree(floats)
        made = self._made[chosen]
        made.bundle.folder.rename(self._folder)
        return replace(made, bundle=Bundle.open(self._folder))


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


def _record(name: str, made: CompressedModel, tried: Sequence[TriedFile]) -> Attempt:
    if not tried:
        reasons = [refusal.reason for refusal in made.refusals]
        return _without_file(name, reasons[0] if reasons else "no file runs on this machine")
    file = tried[0]
    return Attempt(name, file.name, file.drop, file.ratio.value, interval(file.ratio), file.outcome)


def _without_file(name: str, outcome: str) -> Attempt:
    return Attempt(name, None, None, None, None, outcome)
