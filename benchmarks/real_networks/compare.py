"""Compress a real network by the default recipe, and hold every file against the float network."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.real_networks.network import Made, RealNetwork, float_outputs
from benchmarks.real_networks.own_tools import add_own
from benchmarks.runtimes.peers import calibration_samples
from edgedl.compress.graph.trace import trace
from edgedl.compress.parity.parts import OutputOrigins, measure_part
from edgedl.compress.pipeline import CompressedModel, compress
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.target import load_target
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.errors import EdgedlError
from edgedl.runtime.measure.latency_intervals import paired_ratio
from edgedl.runtime.runner import Runner
from edgedl.runtime.task.task import Array
from edgedl.tools.bench.bench import bench
from edgedl.tools.bench.entries import find_entries, put_baseline_first
from edgedl.tools.bench.settings import BenchSettings

RUNTIMES = ("ort", "tflite", "openvino")
CALIBRATION_SAMPLES = 512
# Energy over noise of a file that gives the float network's very values.
EXACT_DB = 200.0


class FileRow(msgspec.Struct, frozen=True):
    """One file, or why there is none.

    Attributes:
        name: of the file.
        kilobytes: of it.
        whole_db: of the output that fares worst.
        part_db: of the part that fares worst; part: its name.
        agreement: share of samples with the same largest value, of a network that classifies.
        ratio: of its time to the float32 file's of its runtime, with an interval of 95 %.
        findings: what edgedl says of it.
        refused: why there is no file.
    """

    name: str
    kilobytes: float = 0.0
    whole_db: float | None = None
    part_db: float | None = None
    part: str = ""
    agreement: float | None = None
    ratio: str = ""
    findings: tuple[str, ...] = ()
    refused: str = ""


class NetworkRows(msgspec.Struct, frozen=True):
    """What became of one network: its files, or what edgedl said in place of any."""

    name: str
    recipe: tuple[str, ...]
    files: tuple[FileRow, ...]
    said: str = ""


def compare(network: RealNetwork, made: Made, folder: Path, timed: bool = False) -> NetworkRows:
    """Return a row for every file of a network.

    Args:
        network: to compress.
        made: its module and samples.
        folder: empty; the files are left there.
        timed: measure latency, too, interleaved.
    """
    subject = network.subject(made)
    try:
        done = compress(subject, None, tuple(load_target(r) for r in RUNTIMES), folder)
    except EdgedlError as error:
        return NetworkRows(network.name, (), (), str(error))
    bundle, failed = add_own(done.bundle, calibration_samples(subject.task, CALIBRATION_SAMPLES))
    rows = _measured(network, subject, made, bundle)
    if timed:
        rows = _timed(subject, bundle, rows)
    refused = {**{r.name: r.reason for r in done.refusals}, **failed}
    rows += [FileRow(name, refused=reason) for name, reason in refused.items()]
    return NetworkRows(network.name, _stages(done), tuple(sorted(rows, key=lambda row: row.name)))


def _stages(done: CompressedModel) -> tuple[str, ...]:
    return tuple(record.stage for record in done.bundle.manifest.history)


def _measured(network: RealNetwork, subject: Subject, made: Made, bundle: Bundle) -> list[FileRow]:
    wanted = float_outputs(made.module, made.test)
    origins = OutputOrigins(trace(subject.module, subject.example_inputs()), made.test)
    rows = []
    for artifact in bundle.manifest.artifacts:
        try:
            with Runner(bundle, artifact) as runner:
                found = list(runner(*made.test))
        except Exception as error:
            # A file of another tool that its runtime cannot run is a line of the table.
            rows.append(FileRow(artifact.name, refused=f"{type(error).__name__}: {error}"))
            continue
        rows.append(_row(artifact, bundle, origins, found, wanted, network.classifies))
    return rows


def _row(
    artifact: Artifact,
    bundle: Bundle,
    origins: OutputOrigins,
    found: Sequence[Array],
    wanted: Sequence[Array],
    classifies: bool,
) -> FileRow:
    parts = [
        measure_part(part, y, reference)
        for index, (y, reference) in enumerate(zip(found, wanted, strict=True))
        for part in origins.parts(index, reference)
    ]
    whole = min(decibels(y, reference) for y, reference in zip(found, wanted, strict=True))
    worst = min(parts, key=lambda part: _known(part.sqnr_db), default=None)
    same = found[0].argmax(1) == wanted[0].argmax(1) if classifies else None
    return FileRow(
        artifact.name,
        (bundle.folder / artifact.path).stat().st_size / 1000,
        whole,
        whole if worst is None else min(whole, _known(worst.sqnr_db)),
        "" if worst is None else worst.name,
        None if same is None else float(same.mean()),
        findings=tuple(f"{f.part}: {f.evidence}" for f in artifact.findings),
    )


def decibels(found: Array, wanted: Array) -> float:
    """Return the energy of an output over its noise.

    >>> decibels(np.array([1.1]), np.array([1.0])).__round__(3)
    20.0
    """
    a, b = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    energy, noise = np.square(b).sum(), np.square(a - b).sum()
    return float(10 * np.log10(energy / noise)) if energy and noise else EXACT_DB


def _known(db: float | None) -> float:
    return EXACT_DB if db is None else db


def _timed(subject: Subject, bundle: Bundle, rows: list[FileRow]) -> list[FileRow]:
    entries, missing = find_entries([bundle])
    settings = BenchSettings(threads=(1,), cold_starts=0)
    outcome = bench(
        subject.name, put_baseline_first(entries), subject.task, settings, missing=missing
    )
    timed = []
    for row in rows:
        base = f"1/{bundle.artifact(row.name).backend}-float32"
        key = f"1/{row.name}"
        if key in outcome.samples and base in outcome.samples:
            before, after = (outcome.samples[k].astype(np.float64) for k in (base, key))
            ratio = paired_ratio(before, after)
            text = f"{ratio.value:.3f} [{ratio.lo:.3f}, {ratio.hi:.3f}]"
            row = msgspec.structs.replace(row, ratio=text)
        timed.append(row)
    return timed
