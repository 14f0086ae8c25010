"""Find the cheapest recipe that meets an accuracy budget and is faster than float32."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgedl.compress.pack import CompressedModel, compress
from edgedl.compress.quantize.affine import Target
from edgedl.compress.recipe import load_recipe
from edgedl.compress.subject import Subject
from edgedl.runtime.errors import EdgedlError
from edgedl.runtime.manifest import BackendName
from edgedl.runtime.statistics import Estimate, paired_ratio
from edgedl.runtime.task import Task
from edgedl.tools.bench import BenchSettings, drop_record, score_entry, time_entries
from edgedl.tools.entries import Entry, find_entries
from edgedl.tools.recommend import speed_verdict
from edgedl.tools.result import Drop, Ladder, Rung, interval

# Cheapest first: what needs no data, what needs a few samples, what needs minutes, what trains.
RUNGS = (
    ("float", "float16"),
    ("dynamic_w8_afp32", "dynamic_int8"),
    ("static_w8c_a8", "int8"),
    ("static_w8c_a8_rounded", "int8"),
    ("mixed_w8c_a8", "int8"),
    ("qat_w8c_a8", "int8"),
)


@dataclass(frozen=True)
class Climb:
    """What the ladder led to: a compressed model in a folder, and how."""

    made: CompressedModel
    ladder: Ladder


@dataclass(frozen=True)
class _Tried:
    """One file of a rung, measured on the samples that choose."""

    name: str
    drop: Drop
    ratio: Estimate

    @property
    def faster(self) -> bool:
        return speed_verdict(self.ratio.lo, self.ratio.hi) == "faster"

    @property
    def taken(self) -> bool:
        return self.faster and self.drop.verdict == "within budget"

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """Return a key by which the better of two files is the smaller one."""
        return not self.taken, not self.faster, self.drop.ci95[1]

    @property
    def outcome(self) -> str:
        if self.taken:
            return "taken"
        if not self.faster:
            return f"{self.drop.verdict}, but not faster than float32 on its own runtime"
        if self.drop.more_samples is not None:
            return f"inconclusive, {self.drop.more_samples} more samples needed"
        return self.drop.verdict


def climb(
    subject: Subject,
    task: Task,
    targets: tuple[Target, ...],
    settings: BenchSettings,
    folder: Path,
    report: Callable[[str], None],
) -> Climb:
    """Try the recipes, cheapest first, until one fits; its bundle becomes ``folder``.

    A recipe fits when a file of it is certainly faster than its runtime's float32 file and its
    drop is certainly within the budget. Where none fits, it is the one that comes closest among
    the faster ones, or else the float files.

    Args:
        subject: network and task; the test split of that task is not touched.
        task: whose test split chooses.
        targets: runtimes to make files for.
        settings: budget, confidence, and how to time.
        folder: of the bundle; must not exist. Others stand beside it meanwhile.
        report: hears a line before every recipe.
    """
    rungs: list[Rung] = []
    kept: dict[str, CompressedModel] = {}
    best: tuple[tuple[bool, bool, float], str] | None = None
    samples = 0
    for name, precision in RUNGS:
        report(f"try {name}")
        place = folder.with_name(f"{folder.name}-{name}")
        place.mkdir()
        try:
            made = compress(subject, load_recipe(name), targets, place)
        except EdgedlError as error:
            shutil.rmtree(place)
            rungs.append(Rung(name, None, None, None, None, str(error)))
            continue
        kept[name] = made
        tried, samples = _try(made, precision, task, settings)
        rungs.append(_record(name, made, precision, tried))
        for file in tried:
            if file.faster and (best is None or file.rank < best[0]):
                best = file.rank, name
        if any(file.taken for file in tried):
            break
    chosen = best[1] if best is not None else RUNGS[0][0]
    met = any(rung.outcome == "taken" for rung in rungs)
    ladder = Ladder(tuple(rungs), chosen, met, samples)
    return Climb(_keep(chosen, kept, folder), ladder)


def _try(
    made: CompressedModel, precision: str, task: Task, settings: BenchSettings
) -> tuple[list[_Tried], int]:
    """Score and time the files of one precision; return them and the number of samples."""
    entries, _ = find_entries([made.bundle])
    baselines = {e.artifact.backend: e for e in entries if e.artifact.precision == "float32"}
    reference = score_entry(baselines["ort"], task)
    tried = []
    for entry in entries:
        if entry.artifact.precision != precision:
            continue
        scores = score_entry(entry, task)
        drop = drop_record(reference, scores, settings.max_drop_pp, settings.confidence)
        tried.append(_Tried(entry.name, drop, _ratio(baselines, entry, settings)))
    return sorted(tried, key=lambda t: t.rank), len(reference)


def _ratio(
    baselines: Mapping[BackendName, Entry], entry: Entry, settings: BenchSettings
) -> Estimate:
    """Return the latency over that of the same runtime's float32 file."""
    own = baselines[entry.artifact.backend]
    times = time_entries([own, entry], settings.threads[0], settings.protocol)
    before, after = (times[e.name].latency_ns.astype(np.float64) for e in (own, entry))
    return paired_ratio(before, after)


def _record(name: str, made: CompressedModel, precision: str, tried: Sequence[_Tried]) -> Rung:
    if not tried:
        reasons = [r.reason for r in made.refusals if r.name.endswith(f"-{precision}")]
        return Rung(name, None, None, None, None, reasons[0] if reasons else "no file to run here")
    file = tried[0]
    return Rung(name, file.name, file.drop, file.ratio.value, interval(file.ratio), file.outcome)


def _keep(chosen: str, kept: dict[str, CompressedModel], folder: Path) -> CompressedModel:
    """Move the chosen bundle to its place and remove the others."""
    for name, made in kept.items():
        if name != chosen:
            shutil.rmtree(made.bundle.folder)
    made = kept[chosen]
    made.bundle.folder.rename(folder)
    return CompressedModel(type(made.bundle).open(folder), made.refusals)
