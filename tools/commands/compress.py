"""``edgedl compress``: the main job."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from edgedl.runtime.backends.runtimes import RUNTIMES
from edgedl.runtime.errors import BadInputError, BudgetMissedError
from edgedl.runtime.progress import Progress
from edgedl.tools.report.summary import job_text
from edgedl.tools.terminal.options import (
    data_options,
    device_option,
    recipe_option,
    weights_option,
)
from edgedl.tools.terminal.parameter_types import (
    CONFIDENCE,
    MINUTES,
    NEW_FOLDER,
    POINTS,
    SEARCH_MINUTES,
    SUBJECT,
    TARGETS,
    TEACHER,
    THREADS,
)
from edgedl.tools.terminal.width import terminal_width

if TYPE_CHECKING:
    from edgedl.compress.recipe.store.store import StageStore
    from edgedl.compress.targets.described import Target
    from edgedl.tools.jobs.wish import Wish


@click.command()
@click.argument("subject", type=SUBJECT)
@recipe_option
@weights_option
@data_options
@click.option(
    "--target",
    "targets",
    type=TARGETS,
    metavar="TARGETS",
    default=",".join(RUNTIMES),
    show_default=True,
    help="Names or YAML files; 'edgedl targets' lists them.",
)
@click.option(
    "--layout",
    type=click.Choice(["native", "nchw"]),
    default="native",
    show_default=True,
    help="Layout of pictures in the files: that of the runtime (NHWC for TFLite), or NCHW.",
)
@click.option(
    "--preprocess-outside",
    is_flag=True,
    help="Leave the normalisation of inputs out of the files: the runner computes it, with means "
    "and deviations of the manifest.",
)
@click.option(
    "--keep-float",
    multiple=True,
    metavar="LAYER",
    help="Layer that stays float32: a module path or wildcard pattern; can be repeated.",
)
@click.option(
    "--teacher",
    "teachers",
    type=TEACHER,
    multiple=True,
    metavar="SUBJECT",
    help="Teacher for stages that distil, instead of the network itself: a subject or a bundle's "
    "folder; can be repeated, the mean is used.",
)
@click.option(
    "--max-drop",
    type=POINTS,
    metavar="PP",
    help="Largest allowed drop, in points. Without --recipe, finds the recipe with the fastest "
    "file within it.",
)
@click.option(
    "--search-minutes",
    type=MINUTES,
    default=SEARCH_MINUTES,
    show_default=True,
    help="How long recipes are tried for --max-drop; the default recipe always is.",
)
@click.option(
    "--confidence",
    type=CONFIDENCE,
    default=0.95,
    show_default=True,
    help="Confidence of the interval of the drop that must be within --max-drop.",
)
@click.option("--out", type=NEW_FOLDER, help="New folder.")
@click.option(
    "--threads", type=THREADS, default="1,2", show_default=True, help="Thread counts to measure."
)
@click.option("--seed", default=0, show_default=True)
@device_option
@click.option("--fresh", is_flag=True, help="Apply every stage; do not reuse cached results.")
@click.option("--dry-run", is_flag=True, help="Only show the stages and how long they take.")
@click.option("--json", "as_json", is_flag=True, help="Print result.json to stdout.")
def command(
    subject: str,
    recipe: str,
    weights: Path | None,
    data: str | None,
    targets: "tuple[Target, ...]",
    layout: str,
    preprocess_outside: bool,
    keep_float: tuple[str, ...],
    teachers: tuple[str, ...],
    max_drop: float | None,
    search_minutes: float,
    confidence: float,
    out: Path | None,
    threads: tuple[int, ...],
    seed: int,
    device: str | None,
    fresh: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Compress SUBJECT, measure it, and write DIR/bundle, DIR/result.json and DIR/report.html.

    SUBJECT is a reference model's name ('edgedl models' lists them), file.py:function, a function
    of yours that returns a Subject or a module, or a float ONNX file; --data names the data of the
    latter two. Several recipes can be joined by "+".

    Results of stages are cached: an interrupted run continues where it stopped ('edgedl cache').
    """
    if out is None and not dry_run:
        raise click.UsageError("Missing option '--out'.", click.get_current_context())

    from edgedl.compress.device import find_device
    from edgedl.compress.recipe.store.store import user_store
    from edgedl.runtime.measure.measure import Protocol
    from edgedl.tools.bench.settings import BenchSettings
    from edgedl.tools.jobs.whole_job import do_job
    from edgedl.tools.jobs.wish import Wish

    if layout == "nchw":
        targets = tuple(msgspec.structs.replace(target, pictures="nchw") for target in targets)
    if preprocess_outside:
        targets = tuple(msgspec.structs.replace(t, input_norms="outside") for t in targets)
    chosen = None if device is None else find_device(device)
    wish = Wish(subject, weights, recipe, keep_float, teachers, targets, seed, chosen, data)
    store = None if fresh else user_store()
    if dry_run or out is None:
        _show_plan(wish, store, max_drop, as_json)
        return
    settings = BenchSettings(threads, Protocol(seed=seed), max_drop, confidence)
    job = replace(wish.job(), search_minutes=search_minutes)
    finished = do_job(job, settings, out, store)
    if as_json:
        click.echo(msgspec.json.encode(finished.result))
    else:
        click.echo(job_text(finished.result, out, terminal_width()))
    if finished.missed:
        raise BudgetMissedError(f"{finished.missed}; the results are in {out}")


def _show_plan(
    wish: "Wish", store: "StageStore | None", max_drop: float | None, as_json: bool
) -> None:
    from edgedl.tools.jobs.plan import plan, total

    job = wish.job()
    if max_drop is not None and job.recipe is None and not job.keep_float:
        raise BadInputError(
            "with --max-drop and no recipe there is no plan, because the recipes tried depend on "
            "the measurements: give a --recipe"
        )
    lines = plan(job, store, Progress(lambda event: click.echo(event.text, err=True)))
    text = "\n".join([*map(str, lines), total(lines)])
    click.echo(msgspec.json.encode(lines) if as_json else text)
