"""A whole job: bundle, measurement and report in one folder that appears when they are done."""

from dataclasses import dataclass
from pathlib import Path

import click

from edgedl.compress.errors import first_line
from edgedl.compress.recipe.store.store import StageStore
from edgedl.tools.bench.result import Result
from edgedl.tools.bench.settings import BenchSettings
from edgedl.tools.jobs.job import Job
from edgedl.tools.jobs.main_job import Made, make_bundle, measure_made, search_recipe
from edgedl.tools.jobs.step_clock import StepClock
from edgedl.tools.report.page import render
from edgedl.tools.terminal.workspace import new_folder, only_run

BUNDLE = "bundle"
REPORT = "report.html"


@dataclass(frozen=True)
class FinishedJob:
    """What a job has left.

    Attributes:
        folder: with ``bundle/``, ``result.json`` and ``report.html``.
        made: the bundle, and what there is to know about it.
        result: what was measured.
    """

    folder: Path
    made: Made
    result: Result

    @property
    def missed(self) -> str:
        """Return which budget was missed, in one sentence; empty if none was."""
        if self.made.compressed.missed is not None:
            return self.made.compressed.missed
        if self.result.recommendation.budget_met is False:
            return (
                f"no file of the strongest precision is certainly within the budget of "
                f"{self.result.max_drop_pp} points"
            )
        return ""


def do_job(job: Job, settings: BenchSettings, out: Path, store: StageStore | None) -> FinishedJob:
    """Compress, measure and draw the report.

    With a budget and neither a recipe nor layers that stay float, the recipe with the fastest file
    that fits is looked for.

    Args:
        job: what is compressed, and how.
        settings: what is measured.
        out: folder that must not exist. What is made stays there, whatever comes of measuring it.
        store: where results of stages are kept; None applies every stage anew.

    Raises:
        EdgedlError: a step cannot be done; the message says which and why.
    """
    failed: Exception | None = None
    clock = StepClock()
    with only_run(out), new_folder(out) as folder:
        if settings.max_drop_pp is not None and job.recipe is None and not job.keep_float:
            made = search_recipe(job, settings, folder / BUNDLE, store, clock)
        else:
            made = make_bundle(job, folder / BUNDLE, store, clock)
        try:
            result = measure_made(made, settings, folder, clock)
        except Exception as error:
            # The bundle is kept, so the error must pass the folder's context first.
            failed = error
        else:
            _draw(made.subject.name, result, folder, out)
    if failed is not None:
        bundle = out / BUNDLE
        click.echo(
            f"the bundle is in {bundle}; measure it with 'edgedl bench {bundle} --out DIR'",
            err=True,
        )
        raise failed
    return FinishedJob(out, made, result)


def _draw(title: str, result: Result, folder: Path, out: Path) -> None:
    """Write the report; a report that cannot be drawn loses nothing else."""
    try:
        (folder / REPORT).write_text(render(title, [result]))
    except Exception as error:
        # matplotlib raises many classes.
        click.echo(
            f"the report could not be written ({first_line(error)}): try again with "
            f"'edgedl report {out} --out FILE.html'",
            err=True,
        )
