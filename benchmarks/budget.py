"""A job with ``--max-drop`` against a job without: whose file is faster.

Run as ``python -m benchmarks.budget FOLDER SUBJECT... [--max-drop PP] [--search-minutes N]``. For
each network both jobs run; then the file that the first recommends and the fastest file of the
default recipe that is certainly within the budget are timed in one interleaved run, with one
thread. FOLDER keeps the jobs: a job that has ended there is not run again.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np

from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.measure.latency_intervals import paired_ratio
from edgedl.runtime.measure.measure import Protocol
from edgedl.tools.bench.entries import PARENT, Entry
from edgedl.tools.bench.recommend import speed_verdict
from edgedl.tools.bench.result import Candidate, Result
from edgedl.tools.bench.run_files import time_entries
from edgedl.tools.report.table import to_markdown, with_interval

HEADER = (
    "network",
    "recipe",
    "file",
    "drop, points",
    "default recipe's file",
    "drop, points",
    "time, budget / default",
    "minutes",
)


def main() -> int:
    """Print a row for each network; exit code 1 if a file with a budget is slower."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("subjects", nargs="+", metavar="SUBJECT")
    parser.add_argument("--max-drop", type=float, default=0.5)
    parser.add_argument("--search-minutes", type=float, default=30)
    options = parser.parse_args()
    search = ["--max-drop", options.max_drop, "--search-minutes", options.search_minutes]
    rows, slower = [], 0
    for subject in options.subjects:
        settings = f"{options.max_drop:g}pp-{options.search_minutes:g}min"
        name = re.sub(r"[^\w.-]+", "_", subject)
        folder = options.folder / f"{name}-{settings}"
        searched = _job(subject, folder / "budget", search)
        default = _job(subject, folder / "default", [])
        chosen = searched.candidate(searched.recommendation.name)
        best = fastest_within(default, options.max_drop)
        found = _time_ratio(folder, chosen.name, best.name)
        slower += speed_verdict(found[1], found[2]) == "slower"
        rows.append(
            [
                subject,
                searched.search.chosen if searched.search else "default",
                chosen.name,
                _drop(chosen),
                best.name,
                _drop(best),
                with_interval(found[0], found[1:], ".3f"),
                f"{sum(s.seconds for s in searched.steps) / 60:.0f}",
            ]
        )
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    print(to_markdown(list(HEADER), rows))
    return 1 if slower else 0


def fastest_within(result: Result, max_drop_pp: float) -> Candidate:
    """Return the fastest file whose drop is certainly within a budget; the baseline's always is."""
    within = [
        c
        for k, c in enumerate(result.candidates)
        if k == 0 or (c.drop.ci95 is not None and c.drop.ci95[1] <= max_drop_pp and not c.findings)
    ]
    return min(within, key=lambda c: c.speedup[0].ratio if c.speedup else 1.0)


def _job(subject: str, out: Path, options: list[object]) -> Result:
    """Run ``edgedl compress`` unless it has ended in this folder; return what it measured."""
    if not (out / "result.json").exists():
        command = [sys.executable, "-m", "edgedl", "compress", subject, "--threads", "1"]
        code = subprocess.run(
            [*command, *map(str, options), "--out", str(out)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ).returncode
        # 1 says that the budget was not met: the result tells how near it came.
        if code not in (0, 1):
            raise SystemExit(f"edgedl compress {subject} ended with exit code {code}")
    return msgspec.json.decode((out / "result.json").read_bytes(), type=Result)


def _time_ratio(folder: Path, budget: str, default: str) -> tuple[float, float, float]:
    """Return the time of the one job's file over the other's, and its interval."""
    entries = [
        _entry(folder / "default", "default", default),
        _entry(folder / "budget", "budget", budget),
    ]
    times = {
        name: found.latency_ns.astype(np.float64)
        for name, found in time_entries(entries, 1, Protocol()).items()
    }
    ratio = paired_ratio(times["default"], times["budget"])
    return ratio.value, ratio.lo, ratio.hi


def _entry(out: Path, name: str, artifact: str) -> Entry:
    own = artifact.removeprefix(PARENT)
    bundle = Bundle.open(out / ("bundle" if own == artifact else "parent"))
    return Entry(name, bundle, bundle.artifact(own))


def _drop(candidate: Candidate) -> str:
    drop = candidate.drop
    return f"{drop.pp:+.2f}" if drop.ci95 is None else with_interval(drop.pp, drop.ci95, "+.2f")


if __name__ == "__main__":
    raise SystemExit(main())
