"""The main job: make a bundle, measure it, and write down what was measured."""

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from edgedl.compress.pipeline import CompressedModel, compress
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.recipe.store.store import StageStore
from edgedl.compress.subject.score import score_module
from edgedl.compress.subject.selection import divide
from edgedl.compress.subject.steps import over_sequences
from edgedl.compress.subject.subject import Subject
from edgedl.runtime.bundle.bundle import Bundle, write_manifest
from edgedl.runtime.bundle.manifest import HostMetric, Manifest
from edgedl.runtime.precision import FLOAT32
from edgedl.runtime.task.task import Task
from edgedl.tools.bench.alerts import chance_alerts, quantized_alerts
from edgedl.tools.bench.bench import bench
from edgedl.tools.bench.entries import PARENT, find_entries, put_baseline_first
from edgedl.tools.bench.result import NotMeasured, Result, Search, with_notes_first, write_result
from edgedl.tools.bench.settings import BenchSettings
from edgedl.tools.jobs.job import Job
from edgedl.tools.jobs.next_steps import next_steps
from edgedl.tools.jobs.search import RecipeSearch
from edgedl.tools.jobs.search_options import MOST_STEPS
from edgedl.tools.jobs.step_clock import StepClock


@dataclass(frozen=True)
class Made:
    """A bundle, and what there is to know about it.

    Attributes:
        subject: what it was made of.
        task: whose test split the final score is of.
        compressed: the files, what was refused, and reasons to doubt.
        search: how its recipe was chosen, if it was.
        parent: float32 files of the network before stages cut or trained it, if they did.
        named: what the command line calls the subject; "" where it has no name there.
    """

    subject: Subject
    task: Task
    compressed: CompressedModel
    search: Search | None = None
    parent: Bundle | None = None
    named: str = ""


def make_bundle(job: Job, folder: Path, store: StageStore | None, clock: StepClock) -> Made:
    """Apply a recipe and write the bundle; that of the parent goes beside it.

    Where a stage of the recipe has a budget, the samples it is checked on are not those of the
    final score.

    Raises:
        EdgedlError: a step cannot be done; the message says which and why.
    """
    recipe, subject = job.recipe, job.subject
    selection, final = None, subject.task
    if recipe is not None and recipe.budgets:
        selection, final = divide(subject.task)
    folder.mkdir()
    files = 3 * len(job.targets)
    stages = 3 if recipe is None else len(recipe.stages)
    with clock.steps("compress", 2 * files + stages + 1) as progress:
        made = compress(
            subject,
            recipe,
            job.targets,
            folder,
            job.keep_float,
            store,
            selection,
            progress=progress,
        )
        if made.parent is not None:
            progress.step("export", "the network as it was")
        parent = _make_parent(job, made, folder)
    return Made(subject, final, made, parent=parent, named=job.named)


def search_recipe(
    job: Job, settings: BenchSettings, folder: Path, store: StageStore | None, clock: StepClock
) -> Made:
    """Find the recipe with the fastest file within the accuracy budget, and keep its bundle.

    Raises:
        EdgedlError: the network cannot be compressed at all.
    """
    subject = job.subject
    selection, final = divide(subject.task)
    with clock.steps("compress", MOST_STEPS) as progress:
        found = RecipeSearch(job, selection, settings, folder, progress, store).run()
        parent = _make_parent(job, found.made, folder)
    return Made(subject, final, found.made, found.search, parent, job.named)


def _make_parent(job: Job, made: CompressedModel, folder: Path) -> Bundle | None:
    """Make float32 files of the network as it was, where stages have cut or trained it."""
    if made.parent is None:
        return None
    before = folder.parent / "parent"
    before.mkdir()
    floats = load_recipe("float")
    return compress(job.subject, floats, job.targets, before, only=(FLOAT32,)).bundle


def measure_made(made: Made, settings: BenchSettings, folder: Path, clock: StepClock) -> Result:
    """Measure a bundle, and write ``result.json`` and its metrics.

    Raises:
        EdgedlError: the measurement is not valid.
    """
    bundle = made.compressed.bundle
    entries, missing = find_entries([bundle])
    prefix = ""
    if made.parent is not None:
        before, _ = find_entries([made.parent])
        entries = [*(replace(e, name=f"{PARENT}{e.name}") for e in before), *entries]
        prefix = PARENT
    missing += [NotMeasured(r.name, r.reason) for r in made.compressed.refusals]
    with clock.steps("measure", 2 * len(entries) + len(settings.threads) + 1) as progress:
        progress.step("score", "the float network")
        network = score_module(over_sequences(made.subject), made.task)
        outcome = bench(
            made.subject.name,
            put_baseline_first(entries, prefix, any_float=True),
            made.task,
            settings,
            progress,
            missing,
            network,
        )
    result = with_notes_first(outcome.result, made.compressed.warnings)
    refused = [refusal.name for refusal in made.compressed.refusals]
    alerts = (
        *chance_alerts(result, bundle.manifest),
        *quantized_alerts(bundle.manifest.artifacts, refused),
    )
    result = msgspec.structs.replace(
        result, search=made.search, alerts=alerts, steps=tuple(clock.taken)
    )
    steps_to_take = next_steps(result, made.named, made.compressed.noisiest)
    result = msgspec.structs.replace(result, next_steps=steps_to_take)
    write_result(folder, result, outcome.samples)
    write_manifest(bundle.folder, _with_metrics(bundle, result))
    return result


def _with_metrics(bundle: Bundle, result: Result) -> Manifest:
    """Return the manifest with what was measured of its files, and which of them to use."""
    own = {artifact.name for artifact in bundle.manifest.artifacts}
    metrics = []
    for c in result.candidates:
        if c.name not in own:
            continue
        score, latency = c.score, c.latency[0]
        metrics.append(HostMetric(c.name, score.metric, score.value, score.ci95))
        metrics.append(
            HostMetric(c.name, f"median_ms_{latency.threads}t", latency.median_ms, latency.ci95)
        )
    advised = result.recommendation.name
    return msgspec.structs.replace(
        bundle.manifest,
        metrics=tuple(metrics),
        recommended=advised if advised in own else None,
    )
