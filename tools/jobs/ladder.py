"""Find the recipe with the fastest file that meets an accuracy budget."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgedl.compress.pipeline import CompressedModel, compress
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.recipe.store.store import StageStore
from edgedl.compress.subject.score import score_module
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.target import REFERENCE, Target, load_target
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.certificates import Finding
from edgedl.runtime.errors import EdgedlError
from edgedl.runtime.measure.estimate import Estimate
from edgedl.runtime.measure.latency_intervals import paired_ratio
from edgedl.runtime.precision import FLOAT32
from edgedl.runtime.progress import Progress
from edgedl.runtime.task.task import Scores, Task
from edgedl.tools.bench.drop import drop_record
from edgedl.tools.bench.entries import Entry, find_entries
from edgedl.tools.bench.recommend import speed_verdict
from edgedl.tools.bench.result import Drop, Ladder, Rung, interval
from edgedl.tools.bench.run_files import score_entry, time_entries
from edgedl.tools.bench.settings import BenchSettings
from edgedl.tools.report.table import describe_verdict

# Recipe and the precision of its files, cheapest first: what needs no data, what needs a few
# samples, what needs minutes, what trains.
RUNGS = (
    ("float", "float16"),
    ("dynamic_w8_afp32", "dynamic_int8"),
    ("static_w8c_a8", "int8"),
    ("static_w8c_a8_rounded", "int8"),
    ("mixed_w8c_a8", "int8"),
    ("qat_w8c_a8_distilled", "int8"),
)
# Recipes that change the weights of another's files, not what the files compute.
AS_FAST_AS = {
    "static_w8c_a8_rounded": "static_w8c_a8",
    "qat_w8c_a8_distilled": "static_w8c_a8",
}
# Those, and recipes that keep some layers of another's files in float.
AT_MOST_AS_FAST_AS = {**AS_FAST_AS, "mixed_w8c_a8": "static_w8c_a8"}
COUNTING_BATCH = 500


@dataclass(frozen=True)
class Climb:
    """What the ladder led to: a compressed model in a folder, and how."""

    made: CompressedModel
    ladder: Ladder


@dataclass(frozen=True)
class _Tried:
    """One file of a rung, measured on the samples that choose.

    Attributes:
        name: of the file.
        drop: of it.
        ratio: its latency over its own runtime's float32 file.
        time: its latency over one file, the same for all.
        findings: parts of outputs that it destroys.
    """

    name: str
    drop: Drop
    ratio: Estimate
    time: float
    findings: tuple[Finding, ...] = ()

    @property
    def faster(self) -> bool:
        return speed_verdict(self.ratio.lo, self.ratio.hi) == "faster"

    @property
    def fits(self) -> bool:
        return self.faster and self.drop.verdict == "within budget" and not self.findings

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """Return a key by which the better of two files is the smaller one."""
        upper = self.drop.ci95[1] if self.drop.ci95 else self.drop.pp
        by = upper if self.faster and not self.fits else self.time
        return not self.fits, not self.faster, by

    @property
    def outcome(self) -> str:
        if self.fits:
            return "fits"
        if self.findings:
            return self.findings[0].describe()
        if not self.faster:
            return f"{self.drop.verdict}, but not faster than float32 on its own runtime"
        return describe_verdict(self.drop)


def climb(
    subject: Subject,
    task: Task,
    targets: tuple[Target, ...],
    settings: BenchSettings,
    folder: Path,
    progress: Progress,
    store: StageStore | None = None,
) -> Climb:
    """Try the recipes, cheapest first, while a faster file may still fit; keep the fastest.

    A recipe fits when a file of it is certainly faster than its runtime's float32 file and its
    drop is certainly within the budget. Of those that fit, the one with the fastest file becomes
    ``folder``. Where none fits, it is the one that comes closest among
    the faster ones, or else the float files. A runtime whose targets have no float32 file gets one
    to be timed against, which is not kept; one that takes none is held against ONNX Runtime's.

    Args:
        subject: network and task; the test split of that task is not touched.
        task: whose test split chooses.
        targets: runtimes to make files for.
        settings: budget, confidence, and how to time.
        folder: of the bundle; must not exist. Others stand beside it meanwhile.
        progress: each recipe is a step.
        store: where results of stages are kept; None keeps nothing.

    Raises:
        EdgedlError: not even the float files can be made.
    """
    floats = _make_floats(subject, targets, folder)
    reference = score_module(subject.module, task)
    rungs: list[Rung] = []
    kept: dict[str, CompressedModel] = {}
    found: dict[str, list[_Tried]] = {}
    for name, precision in RUNGS:
        reached = _as_fast(name, found)
        if reached:
            rungs.append(_without_file(name, f"not tried: no faster than {reached}, which fits"))
            continue
        alike = AS_FAST_AS.get(name, "")
        if alike in found and not any(file.faster for file in found[alike]):
            why = (
                f"{alike} is not faster than float32"
                if found[alike]
                else f"no file of {alike} runs on this machine"
            )
            rungs.append(_without_file(name, f"not tried: {why}"))
            continue
        progress.step("try", name)
        try:
            kept[name] = _make(subject, name, targets, folder, store)
        except EdgedlError as error:
            if name == RUNGS[0][0]:
                raise
            rungs.append(_without_file(name, str(error)))
            continue
        found[name] = _try(kept[name], precision, task, reference, settings, floats)
        rungs.append(_record(name, kept[name], precision, found[name]))
    faster = [(f.rank, name) for name, files in found.items() for f in files if f.faster]
    chosen = min(faster)[1] if faster else RUNGS[0][0]
    met = any(file.fits for file in found.get(chosen, []))
    samples = sum(len(b.labels) for b in task.batches("test", COUNTING_BATCH))
    if floats is not None:
        shutil.rmtree(floats.folder)
    return Climb(_keep(chosen, kept, folder), Ladder(tuple(rungs), chosen, met, samples))


def _as_fast(name: str, found: Mapping[str, list[_Tried]]) -> str:
    """Return a recipe that fits and whose files are at least as fast as another's; "" for none."""
    base = AT_MOST_AS_FAST_AS.get(name, name)
    for other, files in found.items():
        if AS_FAST_AS.get(other, other) == base and any(file.fits for file in files):
            return other
    return ""


def _make_floats(subject: Subject, targets: tuple[Target, ...], folder: Path) -> Bundle | None:
    """Make float32 files of the runtimes that would have none; None where all have one.

    Of ONNX Runtime there always is one.
    """
    have = {REFERENCE.runtime, *(t.runtime for t in targets if FLOAT32.name in t.precisions)}
    names = sorted({target.runtime for target in targets} - have)
    lacking = tuple(load_target(name) for name in names)
    if not lacking:
        return None
    place = folder.with_name(f"{folder.name}-float32")
    place.mkdir()
    return compress(subject, load_recipe("float"), lacking, place, only=(FLOAT32,)).bundle


def _make(
    subject: Subject,
    recipe: str,
    targets: tuple[Target, ...],
    folder: Path,
    store: StageStore | None,
) -> CompressedModel:
    """Compress into a folder beside the one that is wanted in the end."""
    place = folder.with_name(f"{folder.name}-{recipe}")
    place.mkdir()
    try:
        return compress(subject, load_recipe(recipe), targets, place, store=store)
    except BaseException:
        shutil.rmtree(place)
        raise


def _try(
    made: CompressedModel,
    precision: str,
    task: Task,
    reference: Scores,
    settings: BenchSettings,
    floats: Bundle | None = None,
) -> list[_Tried]:
    """Score and time the files of one precision and return them, the best first.

    Args:
        made: with the files.
        precision: of those that count.
        task: whose test split chooses.
        reference: scores [N] of the float network on it.
        settings: budget, confidence, and how to time.
        floats: float32 files of runtimes that have none in ``made``.
    """
    entries, _ = find_entries([made.bundle])
    baselines = _baselines([*(find_entries([floats])[0] if floats else ()), *entries])
    tried = []
    for entry in entries:
        if entry.artifact.precision != precision:
            continue
        scores = score_entry(entry, task)
        drop = drop_record(reference, scores, settings.max_drop_pp, settings.confidence)
        ratio, time = _times(baselines, entry, settings)
        tried.append(_Tried(entry.name, drop, ratio, time, entry.artifact.findings))
    return sorted(tried, key=lambda t: t.rank)


def _baselines(entries: Sequence[Entry]) -> dict[str, Entry]:
    """Return what files of each runtime are timed against: a float32 file, its own or the first.

    Raises:
        EdgedlError: there is no float32 file at all.
    """
    floats = {e.artifact.backend: e for e in entries if e.artifact.kind is FLOAT32}
    if not floats:
        raise EdgedlError("no float32 file runs on this machine, so there is no baseline for times")
    first = floats.get(REFERENCE.runtime) or next(iter(floats.values()))
    return {e.artifact.backend: floats.get(e.artifact.backend, first) for e in entries}


def _times(
    baselines: Mapping[str, Entry], entry: Entry, settings: BenchSettings
) -> tuple[Estimate, float]:
    """Return the latency over that of the same runtime's float32 file, and of the first runtime's.

    They are timed in one interleaved run.
    """
    own = baselines[entry.artifact.backend]
    first = baselines.get(REFERENCE.runtime, own)
    timed = [own, entry] if first is own else [first, own, entry]
    times = time_entries(timed, settings.threads[0], settings.protocol)
    one, before, after = (times[e.name].latency_ns.astype(np.float64) for e in (first, own, entry))
    return paired_ratio(before, after), paired_ratio(one, after).value


def _record(name: str, made: CompressedModel, precision: str, tried: Sequence[_Tried]) -> Rung:
    if not tried:
        reasons = [r.reason for r in made.refusals if r.name.endswith(f"-{precision}")]
        return _without_file(name, reasons[0] if reasons else "no file runs on this machine")
    file = tried[0]
    return Rung(name, file.name, file.drop, file.ratio.value, interval(file.ratio), file.outcome)


def _without_file(name: str, outcome: str) -> Rung:
    return Rung(name, None, None, None, None, outcome)


def _keep(chosen: str, kept: dict[str, CompressedModel], folder: Path) -> CompressedModel:
    """Move the chosen bundle to its place and remove the others."""
    for name, made in kept.items():
        if name != chosen:
            shutil.rmtree(made.bundle.folder)
    made = kept[chosen]
    made.bundle.folder.rename(folder)
    return CompressedModel(Bundle.open(folder), made.refusals, made.warnings)
