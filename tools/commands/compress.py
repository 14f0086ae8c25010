"""``edgedl compress``: the main job."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from edgedl.runtime.bundle import Bundle, write_manifest
from edgedl.runtime.errors import BadInputError, BudgetMissedError
from edgedl.runtime.manifest import HostMetric, Manifest
from edgedl.tools.options import parse_targets, parse_threads, recipe_option, weights_option
from edgedl.tools.progress import steps
from edgedl.tools.result import Ladder, Result
from edgedl.tools.workspace import checkpoints_of, new_folder

if TYPE_CHECKING:
    from edgedl.compress.subject import Subject
    from edgedl.compress.target import Target
    from edgedl.runtime.task import Task
    from edgedl.tools.bench import BenchSettings


@click.command()
@click.argument("subject")
@recipe_option
@weights_option
@click.option("--target", default="ort,tflite,tensorrt", show_default=True, help="Runtimes.")
@click.option(
    "--keep-float",
    multiple=True,
    metavar="LAYER",
    help="Layer that stays float32: a module's path or with wildcards; can be given again.",
)
@click.option(
    "--max-drop",
    type=float,
    metavar="PP",
    help="Largest drop of the score, in points. Without --recipe the cheapest that fits is found.",
)
@click.option(
    "--confidence",
    type=float,
    default=0.95,
    show_default=True,
    help="Of the interval of the drop that must be within --max-drop.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New folder.")
@click.option("--threads", default="1,2", show_default=True, help="Thread counts to measure.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print result.json to stdout.")
def command(
    subject: str,
    recipe: str,
    weights: Path | None,
    target: str,
    keep_float: tuple[str, ...],
    max_drop: float | None,
    confidence: float,
    out: Path,
    threads: str,
    seed: int,
    as_json: bool,
) -> None:
    """Compress SUBJECT, measure it, and write DIR/bundle, DIR/result.json and DIR/report.html.

    SUBJECT is a reference model's name ('edgedl models' lists them) or file.py:function, a
    function of yours that returns a Subject.
    """
    from edgedl.runtime.measure import Protocol
    from edgedl.tools.bench import BenchSettings

    targets, counts = parse_targets(target), parse_threads(threads)
    if max_drop is not None and not 0 <= max_drop <= 100:
        raise BadInputError(f"--max-drop is in points, 0 to 100, got {max_drop}")
    if not 0.5 <= confidence < 1:
        raise BadInputError(f"--confidence is a share, 0.5 to below 1, got {confidence}")
    settings = BenchSettings(counts, Protocol(seed=seed), max_drop, confidence)
    walks = max_drop is not None and recipe == "default" and not keep_float
    with new_folder(out) as folder, checkpoints_of(out) as workspace:
        if walks:
            made = _climb(subject, weights, targets, settings, folder / "bundle", workspace)
        else:
            name = _Name(subject, weights, recipe, keep_float)
            made = _make_bundle(name, targets, seed, folder / "bundle", workspace)
        result = _measure(made, settings, folder)
    _print(result, out, as_json)
    if result.recommendation.budget_met is False:
        raise BudgetMissedError(
            f"the budget of {max_drop} points is missed; what was measured is in {out}"
        )


@dataclass(frozen=True)
class _Made:
    """A bundle, and what there is to know about it.

    Attributes:
        subject: what it was made of.
        task: whose test split the final score is of.
        bundle: the files.
        refused: files that could not be made, with reasons.
        warnings: reasons to doubt the calibration.
        ladder: how its recipe was chosen, if it was.
        parent: float32 files of the network before stages cut or trained it, if they did.
    """

    subject: "Subject"
    task: "Task"
    bundle: Bundle
    refused: dict[str, str]
    warnings: tuple[str, ...]
    ladder: "Ladder | None" = None
    parent: Bundle | None = None


@dataclass(frozen=True)
class _Name:
    """What the user wants compressed, and how, as the command line says it."""

    subject: str
    weights: Path | None
    recipe: str
    keep_float: tuple[str, ...]


def _make_bundle(
    name: _Name, targets: "tuple[Target, ...]", seed: int, folder: Path, workspace: Path
) -> _Made:
    import torch

    from edgedl.compress.pack import compress
    from edgedl.compress.recipe import DEFAULT, load_recipe
    from edgedl.tools.subjects import find_subject

    torch.manual_seed(seed)
    recipe = None if name.recipe == DEFAULT else load_recipe(name.recipe)
    subject = find_subject(name.subject, name.weights)
    folder.mkdir()
    files = 3 * len(targets)
    stages = 3 if recipe is None else len(recipe.stages)
    with steps("compress", 2 * files + stages + 1) as report:
        made = compress(subject, recipe, targets, folder, report, name.keep_float, workspace)
    refused = {r.name: r.reason for r in made.refusals}
    parent = None
    if made.parent is not None:
        before = folder.parent / "parent"
        before.mkdir()
        floats = load_recipe("float")
        parent = compress(subject, floats, targets, before, only=("float32",)).bundle
    return _Made(subject, subject.task, made.bundle, refused, made.warnings, parent=parent)


def _climb(
    reference: str,
    weights: Path | None,
    targets: "tuple[Target, ...]",
    settings: "BenchSettings",
    folder: Path,
    workspace: Path,
) -> _Made:
    import torch

    from edgedl.tools.ladder import RUNGS, climb
    from edgedl.tools.selection import divide
    from edgedl.tools.subjects import find_subject

    torch.manual_seed(settings.protocol.seed)
    subject = find_subject(reference, weights)
    selection, final = divide(subject.task)
    with steps("compress", len(RUNGS)) as report:
        found = climb(subject, selection, targets, settings, folder, report, workspace)
    refused = {r.name: r.reason for r in found.made.refusals}
    warnings = found.made.warnings
    return _Made(subject, final, found.made.bundle, refused, warnings, found.ladder)


def _measure(made: _Made, settings: "BenchSettings", folder: Path) -> Result:
    from edgedl.tools.bench import bench
    from edgedl.tools.entries import PARENT, find_entries, put_baseline_first
    from edgedl.tools.report.page import render
    from edgedl.tools.result import NotMeasured, write_result

    entries, missing = find_entries([made.bundle])
    baseline = "ort-float32"
    if made.parent is not None:
        before, _ = find_entries([made.parent])
        entries = [*(replace(e, name=f"{PARENT}{e.name}") for e in before), *entries]
        baseline = f"{PARENT}{baseline}"
    missing += [NotMeasured(name, reason) for name, reason in made.refused.items()]
    with steps("measure", 2 * len(entries) + len(settings.threads)) as report:
        outcome = bench(
            made.subject.name,
            put_baseline_first(entries, baseline),
            made.task,
            settings,
            report,
            missing,
        )
    advice = outcome.result.recommendation
    advice = msgspec.structs.replace(advice, notes=(*made.warnings, *advice.notes))
    result = msgspec.structs.replace(outcome.result, ladder=made.ladder, recommendation=advice)
    write_result(folder, result, outcome.samples)
    (folder / "report.html").write_text(render(made.subject.name, [result]))
    write_manifest(made.bundle.folder, _with_metrics(made.bundle, result))
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


def _print(result: Result, out: Path, as_json: bool) -> None:
    from edgedl.tools.report.table import result_markdown

    if as_json:
        click.echo(msgspec.json.encode(result))
        return
    click.echo(result_markdown(result))
    click.echo(f"\nbundle: {out / 'bundle'}\nreport: {out / 'report.html'}")
