"""How often two copies of one file are called different, and how often a slowdown is found.

Run as ``python -m benchmarks.runtimes.false_alarms [--trials N] [--threads N] [--busy N]``. A
trial times the int8 files of a network on each runtime and a copy of each, as a job does: one
interleaved run, every file loaded ten times. ``--busy`` processes compute beside it.

A slowdown of 3 % is the copy's times, each multiplied by 1.03.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic

import click
import numpy as np

from edgedl.compress.pipeline import compress
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.compress.targets.target import load_target
from edgedl.runtime.measure.estimate import Estimate
from edgedl.runtime.measure.latency_intervals import paired_ratio
from edgedl.runtime.measure.measure import Protocol
from edgedl.runtime.precision import INT8
from edgedl.tools.bench.entries import Entry, find_entries
from edgedl.tools.bench.recommend import speed_verdict
from edgedl.tools.bench.run_files import time_entries
from edgedl.tools.jobs.subjects import find_subject
from edgedl.tools.report.table import to_markdown

SLOWDOWN = 1.03
COPY = " copy"
BUSY = "import numpy as np\nx = np.ones((400, 400))\nwhile True: x @ x"
HEADER = (
    "file",
    "trials",
    "called different",
    "interval leaves out 1",
    "3 % slower is found",
    "median half width, %",
    "seconds a file",
)


@click.command()
@click.option("--subject", default="resnet8-cifar10", show_default=True)
@click.option("--trials", default=100, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--busy", default=0, show_default=True)
def main(subject: str, trials: int, threads: int, busy: int) -> None:
    """Print a row for each file."""
    with tempfile.TemporaryDirectory() as folder:
        targets = (ORT, load_target("openvino"), TFLITE)
        recipe = load_recipe("static_w8c_a8")
        made = compress(find_subject(subject), recipe, targets, Path(folder), only=(INT8,))
        entries = [e for e in find_entries([made.bundle])[0] if e.artifact.kind is INT8]
        start = monotonic()
        with _busy_processes(busy):
            found = [_trial(entries, threads) for _ in range(trials)]
        seconds = (monotonic() - start) / trials / (2 * len(entries) + 1)
    rows = [
        _row(f"{e.name}, {threads} thread(s)", [t[e.name] for t in found], seconds) for e in entries
    ]
    print(to_markdown(HEADER, rows))


def _trial(entries: Sequence[Entry], threads: int) -> dict[str, Estimate]:
    """Return the latency of each file's copy over its own."""
    both = [*entries, *(replace(e, name=e.name + COPY) for e in entries)]
    times = {
        name: m.latency_ns.astype(np.float64)
        for name, m in time_entries(both, threads, Protocol()).items()
    }
    return {e.name: paired_ratio(times[e.name], times[e.name + COPY]) for e in entries}


def _row(name: str, trials: Sequence[Estimate], seconds: float) -> list[str]:
    count = len(trials)
    different = sum(speed_verdict(t.lo, t.hi) != "no difference shown" for t in trials)
    outside = sum(not t.lo <= 1 <= t.hi for t in trials)
    seen = sum(SLOWDOWN * t.lo > 1 for t in trials)
    half = float(np.median([np.log(t.hi / t.lo) / 2 for t in trials]))
    return [
        name,
        str(count),
        *(f"{part} ({100 * part / count:.0f} %)" for part in (different, outside, seen)),
        f"{100 * half:.2f}",
        f"{seconds:.1f}",
    ]


@contextmanager
def _busy_processes(count: int) -> Iterator[None]:
    """Let so many processes compute meanwhile, each on one thread."""
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    running = [subprocess.Popen([sys.executable, "-c", BUSY], env=one_thread) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
