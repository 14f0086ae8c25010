"""Measure every file of some bundles against one baseline."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.signature import Trust
from edgedl.runtime.errors import BackendUnavailableError, BadInputError, IntegrityError
from edgedl.runtime.task.checked_task import CheckedTask
from edgedl.runtime.task.task import Task
from edgedl.tools.bench.alerts import chance_alerts
from edgedl.tools.bench.bench import BenchOutcome
from edgedl.tools.bench.bench import bench as bench_entries
from edgedl.tools.bench.entries import (
    bundle_names,
    find_entries,
    leave_out_refused,
    put_baseline_first,
)
from edgedl.tools.bench.loose_file import BACKEND_OF, is_model_file, wrap_file
from edgedl.tools.bench.result import Result
from edgedl.tools.bench.settings import BenchSettings, thread_counts
from edgedl.tools.jobs.subjects import find_task
from edgedl.tools.terminal.progress import steps


def bench(
    *bundles: str | Path | Bundle,
    task: Task | None = None,
    threads: int | Sequence[int] = (1,),
    max_drop: float | None = None,
) -> Result:
    """Measure accuracy and latency of every file of some bundles, interleaved and paired.

    Args:
        bundles: folders, or .onnx and .tflite files of any maker; the first has the baseline.
        task: data and score; None for bundles whose data edgedl has.
        threads: of the runtimes; the first decides.
        max_drop: budget in points for the recommendation.

    Raises:
        BadInputError: there is nothing to measure, or no data to measure it with.
        BackendUnavailableError: no runtime is installed that the files are for.
        InvalidMeasurementError: the clock cannot resolve a call.
    """
    if not bundles:
        raise BadInputError("bench needs a bundle")
    paths = [b.folder if isinstance(b, Bundle) else Path(b) for b in bundles]
    settings = BenchSettings(thread_counts(threads), max_drop_pp=max_drop)
    return bench_paths(paths, task, settings).result


def bench_paths(
    paths: Sequence[Path],
    task: Task | None,
    settings: BenchSettings,
    baseline: str | None = None,
    trust: Trust | None = None,
) -> BenchOutcome:
    """Do what ``bench`` says, and return every recorded call, too.

    Args:
        paths: bundles and model files; the first has the baseline.
        task: see ``bench``.
        settings: what to measure.
        baseline: name of the file that the others are measured against; None for float32.
        trust: whose bundles are accepted; None for everybody's. An unsigned one that is accepted
            is an alert of the result.

    Raises:
        EdgedlError: as ``bench``; IntegrityError: a bundle is not signed by a trusted key.
    """
    with tempfile.TemporaryDirectory() as wrapped:
        opened = _open(paths, task, Path(wrapped), trust)
        found = _bench_opened(opened, wrapped, task, settings, baseline)
    if trust is None:
        return found
    unsigned = tuple(
        f"{path} is not signed"
        for path, bundle in zip(paths, opened, strict=True)
        if bundle.signer is None
    )
    result = msgspec.structs.replace(found.result, alerts=(*unsigned, *found.result.alerts))
    return BenchOutcome(result, found.samples)


def _bench_opened(
    opened: Sequence[Bundle],
    wrapped: str,
    task: Task | None,
    settings: BenchSettings,
    baseline: str | None,
) -> BenchOutcome:
    entries, missing = find_entries(opened)
    if not entries:
        raise BackendUnavailableError("; ".join(dict.fromkeys(m.why for m in missing)))
    name = bundle_names([bundle.folder for bundle in opened])[0]
    prefix = f"{name}:" if name else ""
    # Names are checked before any file is loaded.
    put_baseline_first(entries, prefix, baseline)
    manifest = opened[0].manifest
    found = CheckedTask.of(task) if task is not None else find_task(manifest.task.name, None)
    # A file that was named itself must run.
    named = [e for e in entries if e.bundle.folder.is_relative_to(wrapped)]
    taken, refused = leave_out_refused([e for e in entries if e not in named])
    entries = [e for e in entries if e in (*named, *taken)]
    if not entries:
        raise BadInputError("; ".join(item.why for item in refused))
    ordered = put_baseline_first(entries, prefix, baseline)
    with steps("measure", 2 * len(ordered) + len(settings.threads)) as progress:
        outcome = bench_entries(
            manifest.name, ordered, found, settings, progress, [*missing, *refused]
        )
    alerts = chance_alerts(outcome.result, ordered[0].bundle.manifest)
    return BenchOutcome(msgspec.structs.replace(outcome.result, alerts=alerts), outcome.samples)


def _open(
    paths: Sequence[Path], task: Task | None, scratch: Path, trust: Trust | None
) -> list[Bundle]:
    """Open bundles, and wrap files into some; those are named after the files."""
    files = [path for path in paths if is_model_file(path)]
    if files and trust is not None and not trust.allow_unsigned:
        raise IntegrityError(f"{files[0]} is not signed: accept that with --allow-unsigned")
    if files and task is None:
        raise BadInputError(f"{files[0]} does not say what data it is for: give --task")
    other = next((path for path in paths if path.is_file() and path not in files), None)
    if other is not None:
        kinds = " or ".join(BACKEND_OF)
        raise BadInputError(f"{other} is neither a bundle nor a {kinds} file")
    found = []
    for path, name in zip(paths, bundle_names(paths), strict=True):
        if task is None or not is_model_file(path):
            found.append(Bundle.open(path, trust))
            continue
        bundle, notes = wrap_file(path, task, scratch / (name or path.name))
        for note in notes:
            click.echo(note, err=True)
        found.append(bundle)
    return found
