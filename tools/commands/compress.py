"""``edgedl compress``: the main job."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from edgedl.runtime.backends.runtimes import RUNTIMES
from edgedl.runtime.errors import BadInputError, BudgetMissedError
from edgedl.runtime.progress import Progress
from edgedl.tools.bench.result import Result
from edgedl.tools.terminal.options import (
    device_option,
    parse_targets,
    parse_threads,
    recipe_option,
    weights_option,
)
from edgedl.tools.terminal.workspace import new_folder, only_run

if TYPE_CHECKING:
    from edgedl.compress.recipe.store.store import StageStore
    from edgedl.tools.bench.settings import BenchSettings
    from edgedl.tools.jobs.main_job import Made, Wish


@click.command()
@click.argument("subject")
@recipe_option
@weights_option
@click.option("--target", default=",".join(RUNTIMES), show_default=True, help="Runtimes.")
@click.option(
    "--keep-float",
    multiple=True,
    metavar="LAYER",
    help="Layer that stays float32: a module's path or with wildcards; can be given again.",
)
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    metavar="SUBJECT",
    help="Who teaches where a stage distils, instead of the network itself: a subject or a "
    "bundle's folder; of several the mean.",
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
@click.option("--out", type=click.Path(path_type=Path), help="New folder.")
@click.option("--threads", default="1,2", show_default=True, help="Thread counts to measure.")
@click.option("--seed", default=0, show_default=True)
@device_option
@click.option("--fresh", is_flag=True, help="Apply every stage, reuse no earlier result.")
@click.option("--dry-run", is_flag=True, help="Show the stages and how long they take; no more.")
@click.option("--json", "as_json", is_flag=True, help="Print result.json to stdout.")
def command(
    subject: str,
    recipe: str,
    weights: Path | None,
    target: str,
    keep_float: tuple[str, ...],
    teachers: tuple[str, ...],
    max_drop: float | None,
    confidence: float,
    out: Path | None,
    threads: str,
    seed: int,
    device: str | None,
    fresh: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Compress SUBJECT, measure it, and write DIR/bundle, DIR/result.json and DIR/report.html.

    SUBJECT is a reference model's name ('edgedl models' lists them) or file.py:function, a
    function of yours that returns a Subject. A RECIPE can be several, joined by "+".

    Results of stages are kept: a run that was cut off goes on where it was ('edgedl cache').
    """
    from edgedl.compress.device import find_device
    from edgedl.compress.recipe.store.store import user_store
    from edgedl.runtime.measure.measure import Protocol
    from edgedl.tools.bench.settings import BenchSettings
    from edgedl.tools.jobs.main_job import Wish, climb_ladder, make_bundle

    targets, counts = parse_targets(target), parse_threads(threads)
    if max_drop is not None and not 0 <= max_drop <= 100:
        raise BadInputError(f"--max-drop is in points, 0 to 100, got {max_drop}")
    if not 0.5 <= confidence < 1:
        raise BadInputError(f"--confidence is a share, 0.5 to below 1, got {confidence}")
    chosen = None if device is None else find_device(device)
    settings = BenchSettings(counts, Protocol(seed=seed), max_drop, confidence)
    wish = Wish(subject, weights, recipe, keep_float, teachers, targets, seed, chosen)
    store = None if fresh else user_store()
    walks = max_drop is not None and recipe == "default" and not keep_float
    if dry_run:
        _show_plan(wish, store, walks, as_json)
        return
    if out is None:
        raise click.UsageError("Missing option '--out'.")
    with only_run(out), new_folder(out) as folder:
        make = partial(climb_ladder, wish, settings) if walks else partial(make_bundle, wish)
        made = make(folder / "bundle", store)
        # What is made stays, whatever comes of measuring it.
        result = _measured(made, settings, folder, out)
    if isinstance(result, Exception):
        raise result
    _print(result, out, as_json)
    if made.compressed.missed is not None:
        raise BudgetMissedError(f"{made.compressed.missed}; what was reached is in {out}")
    if result.recommendation.budget_met is False:
        raise BudgetMissedError(
            f"the budget of {max_drop} points is not shown to be met by any file of the strongest "
            f"precision; what was measured is in {out}"
        )


def _show_plan(wish: "Wish", store: "StageStore | None", walks: bool, as_json: bool) -> None:
    from edgedl.tools.jobs.plan import plan, total

    if walks:
        raise BadInputError(
            "the ladder of --max-drop without a recipe has no plan, what it tries depends on "
            "what it measures: name a --recipe"
        )
    lines = plan(wish, store, Progress(lambda event: click.echo(event.text, err=True)))
    text = "\n".join([*map(str, lines), total(lines)])
    click.echo(msgspec.json.encode(lines) if as_json else text)


def _measured(
    made: "Made", settings: "BenchSettings", folder: Path, out: Path
) -> "Result | Exception":
    """Measure a bundle and draw the report; return the error of a measurement that failed."""
    from edgedl.tools.jobs.main_job import measure_made

    try:
        result = measure_made(made, settings, folder)
    except Exception as error:
        bundle = out / "bundle"
        click.echo(
            f"the bundle is in {bundle}: 'edgedl bench {bundle} --out DIR' measures it", err=True
        )
        return error
    _draw(made.subject.name, result, folder, out)
    return result


def _draw(title: str, result: Result, folder: Path, out: Path) -> None:
    """Write the report; a report that cannot be drawn loses nothing else."""
    from edgedl.compress.errors import first_line
    from edgedl.tools.report.page import render

    try:
        (folder / "report.html").write_text(render(title, [result]))
    except Exception as error:
        # matplotlib raises many classes.
        click.echo(
            f"no report was drawn ({first_line(error)}): 'edgedl report {out} --out FILE.html' "
            "tries again",
            err=True,
        )


def _print(result: Result, out: Path, as_json: bool) -> None:
    from edgedl.tools.report.table import result_markdown

    if as_json:
        click.echo(msgspec.json.encode(result))
        return
    click.echo(result_markdown(result))
    click.echo(f"\nbundle: {out / 'bundle'}\nreport: {out / 'report.html'}")
