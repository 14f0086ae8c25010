"""``edgedl bench``: latency and accuracy of the same bytes."""

import tempfile
from pathlib import Path

import click
import msgspec

from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.errors import BackendUnavailableError, BadInputError, BudgetMissedError
from edgedl.runtime.measure.measure import Protocol
from edgedl.tools.bench.alerts import chance_alerts
from edgedl.tools.bench.bench import bench
from edgedl.tools.bench.budget import Limit, missed, parse_budget
from edgedl.tools.bench.entries import (
    BASELINES,
    bundle_names,
    find_entries,
    leave_out_refused,
    put_baseline_first,
)
from edgedl.tools.bench.loose_file import BACKEND_OF, is_model_file, wrap_file
from edgedl.tools.bench.result import write_result
from edgedl.tools.bench.settings import BenchSettings
from edgedl.tools.jobs.subjects import find_task
from edgedl.tools.report.table import result_markdown, to_csv
from edgedl.tools.terminal.parameter_types import BUNDLE_OR_FILE, NEW_FOLDER, TASK, THREADS
from edgedl.tools.terminal.progress import steps
from edgedl.tools.terminal.workspace import new_folder


@click.command()
@click.argument(
    "bundles",
    nargs=-1,
    required=True,
    metavar="BUNDLE|FILE...",
    type=BUNDLE_OR_FILE,
)
@click.option("--baseline", type=BUNDLE_OR_FILE, help="Bundle with the baseline [first].")
@click.option(
    "--baseline-artifact",
    help=f"Such as tflite-float32 [{BASELINES[0]}, or another float32 file that runs here].",
)
@click.option("--task", type=TASK, help="file.py:function that returns your Task or Subject.")
@click.option("--scenario", default="single_stream", type=click.Choice(["single_stream"]))
@click.option("--threads", type=THREADS, default="1,2", show_default=True)
@click.option("--blocks", default=40, show_default=True, type=click.IntRange(40))
@click.option(
    "--budget",
    metavar="LIMITS",
    callback=lambda ctx, option, text: parse_budget(text) if text else (),
    help='For example "p90_ms<2,drop_pp<0.5".',
)
@click.option("--out", required=True, type=NEW_FOLDER, help="New folder.")
@click.option("--json", "as_json", is_flag=True, help="Print result.json to stdout.")
def command(
    bundles: tuple[Path, ...],
    baseline: Path | None,
    baseline_artifact: str | None,
    task: str | None,
    scenario: str,
    threads: tuple[int, ...],
    blocks: int,
    budget: tuple[Limit, ...],
    out: Path,
    as_json: bool,
) -> None:
    """Measure every artifact of BUNDLES, interleaved, paired against one baseline.

    A .onnx or .tflite file may stand for a bundle, whoever made it; give its data with --task.

    Writes result.json, samples.npz (every call) and summary.csv. A budget names limits that the
    recommended artifact must keep: median_ms, p90_ms, p99_ms, ratio, drop_pp, size_kb; the upper
    end of the interval counts.
    """
    paths = list(dict.fromkeys([*([baseline] if baseline else []), *bundles]))
    with tempfile.TemporaryDirectory() as wrapped:
        opened = _open(paths, task, Path(wrapped))
        entries, missing = find_entries(opened)
        if not entries:
            raise BackendUnavailableError("; ".join(dict.fromkeys(m.why for m in missing)))
        name = bundle_names([bundle.folder for bundle in opened])[0]
        prefix = f"{name}:" if name else ""
        # Names are checked before any file is loaded.
        put_baseline_first(entries, prefix, baseline_artifact)
        found = find_task(opened[0].manifest.task.name, task)
        # A file that was named itself must run.
        named = [e for e in entries if e.bundle.folder.is_relative_to(wrapped)]
        taken, refused = leave_out_refused([e for e in entries if e not in named])
        entries = [e for e in entries if e in (*named, *taken)]
        if not entries:
            raise BadInputError("; ".join(item.why for item in refused))
        missing += refused
        ordered = put_baseline_first(entries, prefix, baseline_artifact)
        settings = BenchSettings(threads, Protocol(blocks=blocks))
        with new_folder(out) as folder:
            with steps("measure", 2 * len(ordered) + len(settings.threads)) as progress:
                outcome = bench(
                    opened[0].manifest.name, ordered, found, settings, progress, missing
                )
            alerts = chance_alerts(outcome.result, ordered[0].bundle.manifest)
            result = msgspec.structs.replace(outcome.result, alerts=alerts)
            write_result(folder, result, outcome.samples)
            (folder / "summary.csv").write_text(to_csv(result))
        click.echo(msgspec.json.encode(result) if as_json else result_markdown(result))
        broken = missed(result.candidate(result.recommendation.name), budget)
        if broken:
            raise BudgetMissedError("; ".join(broken))


def _open(paths: list[Path], task: str | None, scratch: Path) -> list[Bundle]:
    """Open bundles, and wrap files into some; those are named after the files."""
    files = [path for path in paths if is_model_file(path)]
    if files and task is None:
        raise BadInputError(f"{files[0]} does not say what data it is for: give --task")
    other = next((path for path in paths if path.is_file() and path not in files), None)
    if other is not None:
        kinds = " or ".join(BACKEND_OF)
        raise BadInputError(f"{other} is neither a bundle nor a {kinds} file")
    names = bundle_names(paths)
    found = []
    for path, name in zip(paths, names, strict=True):
        if is_model_file(path):
            bundle, notes = wrap_file(path, find_task("", task), scratch / (name or path.name))
            for note in notes:
                click.echo(note, err=True)
            found.append(bundle)
        else:
            found.append(Bundle.open(path))
    return found
