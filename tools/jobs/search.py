"""Look for the recipe with the fastest file that meets an accuracy budget."""

import shutil
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from edgedl.compress.graph.trace import trace
from edgedl.compress.pipeline import CompressedModel, compress
from edgedl.compress.recipe.default_recipe import default_recipe
from edgedl.compress.recipe.store.store import StageStore
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.errors import EdgedlError, FileFailedError
from edgedl.runtime.precision import FLOAT32
from edgedl.runtime.progress import SILENT, Progress
from edgedl.runtime.task.task import Task
from edgedl.runtime.wording import about, counted
from edgedl.tools.bench.result import Attempt, Search, interval
from edgedl.tools.bench.settings import BenchSettings
from edgedl.tools.jobs.file_meter import FLOAT_NAMES, FileMeter
from edgedl.tools.jobs.job import Job
from edgedl.tools.jobs.plan import plan
from edgedl.tools.jobs.search_options import Option, next_pruned, options, timed_on, why_not
from edgedl.tools.jobs.tried_file import TriedFile

COUNTING_BATCH = 500
# Files of different recipes are timed in different runs. Those whose times are this near to the
# best one's are timed once more, beside each other.
NEAR = 1.15


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
    begins.
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
        self._meter: FileMeter | None = None

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
        self._time_rivals(first)
        chosen = self._best(first)
        met = any(file.fits for file in self._found[chosen])
        samples = sum(len(b.labels) for b in self._task.batches("test", COUNTING_BATCH))
        found = Search(tuple(self._attempts), chosen.name, met, samples)
        return Found(self._keep(chosen), found)

    def _time_rivals(self, first: Option) -> None:
        """Time the files that may turn out to be the fastest in one run, if recipes share them."""
        rivals = [
            (option, file)
            for option, files in self._found.items()
            for file in files
            if file.fits or (option is first and _is_float_within(file))
        ]
        least = min((file.time for _, file in rivals), default=0.0)
        rivals = [(option, file) for option, file in rivals if file.time <= NEAR * least]
        if self._meter is None or len({option for option, _ in rivals}) < 2:
            return
        self._progress.note(f"time {counted(len(rivals), 'file')} that fit beside each other")
        named = [(self._made[option].bundle, file.name) for option, file in rivals]
        try:
            times = self._meter.times_together(named)
        except FileFailedError as error:
            self._progress.note(f"their times of before decide: {error}")
            return
        for (option, file), time_ in zip(rivals, times, strict=True):
            files = self._found[option]
            files[files.index(file)] = replace(file, time=time_)

    def _best(self, first: Option) -> Option:
        """Return the option whose bundle has the fastest file within the budget.

        The float files of a network that was not cut are in every bundle: a smaller one is no gain
        where its files are not faster than those. Where nothing fits it is the option with the
        faster file that is nearest to the budget, else the first one.
        """
        fits = {
            option: min(file.time for file in files if file.fits)
            for option, files in self._found.items()
            if any(file.fits for file in files)
        }
        floats = [file for file in self._found[first] if _is_float_within(file)]
        least = min((file.time for file in floats), default=float("inf"))
        if fits:
            whole = {o: time if self._changed(o) else min(time, least) for o, time in fits.items()}
            return min(fits, key=lambda option: (whole[option], fits[option]))
        faster = [(f.rank, o) for o, files in self._found.items() for f in files if f.faster]
        return min(faster, key=lambda pair: pair[0])[1] if faster else first

    def _changed(self, option: Option) -> bool:
        """Say whether the network of an option was cut or trained."""
        return self._made[option].parent is not None

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
            if self._meter is None:
                floats = self._folder.with_name(f"{self._folder.name}-float32")
                self._meter = FileMeter(self._job, self._task, self._settings, made.bundle, floats)
        except BaseException as error:
            shutil.rmtree(place)
            if must_work or not isinstance(error, EdgedlError):
                raise
            self._attempts.append(_without_file(option.name, str(error)))
            return
        self._made[option] = made
        self._found[option] = self._meter.measure(made, must_work, self._progress.of(option.name))
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


def _is_float_within(file: TriedFile) -> bool:
    return file.precision in FLOAT_NAMES and file.drop.within_budget


def _record(name: str, made: CompressedModel, tried: Sequence[TriedFile]) -> Attempt:
    if not tried:
        reasons = [refusal.reason for refusal in made.refusals]
        return _without_file(name, reasons[0] if reasons else "no file runs on this machine")
    # A float32 file is named only where it is what fits: that of a network that was cut.
    others = [f for f in tried if f.precision != FLOAT32.name or f.fits]
    file = (others or tried)[0]
    return Attempt(name, file.name, file.drop, file.ratio.value, interval(file.ratio), file.outcome)


def _without_file(name: str, outcome: str) -> Attempt:
    return Attempt(name, None, None, None, None, outcome)
