"""``edgedl bench``: latency and accuracy of the same bytes."""

import math
from pathlib import Path

import click
import msgspec

from edgedl.runtime.bundle.signature import Trust
from edgedl.runtime.errors import BudgetMissedError
from edgedl.runtime.measure.measure import LEAST_BLOCKS, MOST_BLOCKS, Protocol
from edgedl.tools.bench.budget import Limit, missed, parse_budget
from edgedl.tools.bench.entries import BASELINES
from edgedl.tools.bench.result import write_result
from edgedl.tools.bench.settings import BenchSettings
from edgedl.tools.jobs.bench_bundles import bench_paths
from edgedl.tools.jobs.subjects import find_task
from edgedl.tools.report.summary import result_text
from edgedl.tools.report.table import to_csv
from edgedl.tools.terminal.parameter_types import BUNDLE_OR_FILE, NEW_FOLDER, TASK, THREADS
from edgedl.tools.terminal.trust import trust_options
from edgedl.tools.terminal.width import terminal_width
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
    help=f"Such as tflite-float32 [{BASELINES[0]}, or another float32 file that runs].",
)
@click.option(
    "--task",
    type=TASK,
    help="file.py:function that returns your Task or Subject; or a data set's or reference model's "
    "name.",
)
@click.option("--scenario", default="single_stream", type=click.Choice(["single_stream"]))
@click.option("--threads", type=THREADS, default="1,2", show_default=True)
@click.option(
    "--blocks",
    type=click.IntRange(LEAST_BLOCKS),
    help="rounds of the measurement; more make intervals narrower (default: as many as fit into "
    f"{Protocol.arm_ms / 1000:g} s for each file, {LEAST_BLOCKS} to {MOST_BLOCKS}).",
)
@click.option(
    "--budget",
    metavar="LIMITS",
    callback=lambda ctx, option, text: parse_budget(text) if text else (),
    help='For example "p90_ms<2,drop_pp<0.5".',
)
@click.option("--out", required=True, type=NEW_FOLDER, help="New folder.")
@click.option("--json", "as_json", is_flag=True, help="Print result.json to stdout.")
@trust_options
def command(
    bundles: tuple[Path, ...],
    baseline: Path | None,
    baseline_artifact: str | None,
    task: str | None,
    scenario: str,
    threads: tuple[int, ...],
    blocks: int | None,
    budget: tuple[Limit, ...],
    out: Path,
    as_json: bool,
    trust: Trust | None,
) -> None:
    """Measure every artifact of BUNDLES, interleaved, paired against one baseline.

    Instead of a bundle, you can give a .onnx or .tflite file made by any tool; give its data with
    --task.

    Writes result.json, samples.npz (every call) and summary.csv. A budget sets limits for
    the recommended artifact: median_ms, p90_ms, p99_ms, ratio, drop_pp, size_kb; the upper end of
    the interval must be below the limit.
    """
    protocol = Protocol() if blocks is None else Protocol(blocks=blocks, arm_ms=math.inf)
    settings = BenchSettings(threads, protocol)
    paths = list(dict.fromkeys([*([baseline] if baseline else []), *bundles]))
    found = None if task is None else find_task("", task)
    with new_folder(out) as folder:
        outcome = bench_paths(paths, found, settings, baseline_artifact, trust)
        result = outcome.result
        write_result(folder, result, outcome.samples)
        (folder / "summary.csv").write_text(to_csv(result))
    click.echo(msgspec.json.encode(result) if as_json else result_text(result, terminal_width()))
    broken = missed(result.candidate(result.recommendation.name), budget)
    if broken:
        raise BudgetMissedError("; ".join(broken))
