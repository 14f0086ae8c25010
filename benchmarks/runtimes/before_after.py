"""Files of the same networks made by two versions of edgedl: their times and their fidelity.

Run as ``python -m benchmarks.runtimes.before_after BEFORE AFTER [--files NAME...] [--scores]
[--threads N] [--out FILE]``; ``--files`` are names of artifacts, such as ort-int8; ``--scores``
scores them, too, on the test data that the bundles name.
BEFORE and AFTER are folders with bundles in the same places, such as those of
``python -m benchmarks.operators.run --bundles DIR``, made by each version. Files with the same
bytes are left out. The others are timed in pairs, in one interleaved run; what is slower is timed
again. Fidelity is that to the float32 file of the same bundle and runtime, on the golden inputs.
Exit code 1 if a file is slower in both runs and has not gained 3 dB, or scores worse.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.golden import golden_inputs
from edgedl.runtime.bundle.seal import MANIFEST
from edgedl.runtime.errors import EdgedlError
from edgedl.runtime.measure.estimate import Estimate
from edgedl.runtime.measure.latency_intervals import paired_ratio
from edgedl.runtime.measure.measure import Protocol
from edgedl.runtime.measure.score_intervals import paired_drop
from edgedl.runtime.precision import FLOAT32
from edgedl.runtime.runner import Runner
from edgedl.runtime.task.task import Task
from edgedl.tools.bench.entries import Entry, find_entries
from edgedl.tools.bench.run_files import score_entry, time_entries
from edgedl.tools.jobs.subjects import find_task
from edgedl.tools.report.table import to_markdown, with_interval

HEADER = ("bundle", "file", "after / before", "again", "dB before", "dB after", "points lost")
GAIN_DB = 3.0


@dataclass(frozen=True)
class Pair:
    """A file before and after.

    Attributes:
        bundle: where both bundles lie in their folders. file: name of the artifact.
        ratio: of the times, after over before. again: of a second run, where it was slower.
        before_db, after_db: fidelity to float32, None where there is no float32 file or no noise.
        lost: of the score, before minus after on the same samples; None if not scored.
    """

    bundle: str
    file: str
    ratio: Estimate
    again: Estimate | None
    before_db: float | None
    after_db: float | None
    lost: Estimate | None

    @property
    def is_worse(self) -> bool:
        """Whether it scores worse, or is slower in both runs and has not gained enough for that."""
        slower = self.again is not None and self.ratio.lo > 1 and self.again.lo > 1
        gained = (self.after_db or 0.0) - (self.before_db or 0.0)
        return self.scores_worse or (slower and gained < GAIN_DB)

    @property
    def scores_worse(self) -> bool:
        """Whether the interval of the points that it lost is above 0."""
        return self.lost is not None and self.lost.lo > 0


def main() -> int:
    """Compare the bundles, print what is slower, and count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--files", nargs="+", default=[], metavar="NAME", help="all by default")
    parser.add_argument("--scores", action="store_true", help="score the files, too")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file for all rows")
    options = parser.parse_args()
    found: list[Pair] = []
    same = 0
    both = list(bundles(options.before, options.after))
    if not both:
        parser.error(f"{options.before} and {options.after} have no bundle in the same place")
    for place, before, after in both:
        print(place, file=sys.stderr, flush=True)
        task = find_task(after.manifest.task.name, None) if options.scores else None
        pairs, unchanged = compare(place, before, after, options.threads, options.files, task)
        same += unchanged
        found += pairs
        if options.out is not None:
            options.out.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    slower = [pair for pair in found if pair.ratio.lo > 1]
    told = [pair for pair in found if pair in slower or pair.lost is not None]
    print(to_markdown(HEADER, [_row(pair) for pair in told]))
    faster = sum(pair.ratio.hi < 1 for pair in found)
    worse = sum(pair.is_worse for pair in found)
    print(
        f"\n{len(found)} files differ, {same} are the same: {faster} faster, {len(slower)} slower, "
        f"{worse} worse: slower in both runs without a gain of {GAIN_DB:g} dB, or of a lower score"
    )
    return int(worse > 0)


def bundles(before: Path, after: Path) -> Iterator[tuple[str, Bundle, Bundle]]:
    """Yield the bundles that both folders have in the same place."""
    for manifest in sorted(before.rglob(MANIFEST)):
        place = manifest.parent.relative_to(before)
        if (after / place / MANIFEST).is_file():
            yield str(place), Bundle.open(manifest.parent), Bundle.open(after / place)


def compare(
    place: str,
    before: Bundle,
    after: Bundle,
    threads: int,
    files: Sequence[str] = (),
    task: Task | None = None,
) -> tuple[list[Pair], int]:
    """Return the files that differ, and how many do not.

    Args:
        place: of both bundles, for the rows.
        before: one of the bundles.
        after: the other.
        threads: to time them with.
        files: names of those to take; all if there is none.
        task: whose test samples they are scored on.
    """
    old, new = (_runnable(bundle) for bundle in (before, after))
    shared = [name for name in old if name in new and (not files or name in files)]
    changed = [n for n in shared if _content(old[n]) != _content(new[n])]
    pairs = []
    for name in changed:
        ratio = _ratio(old[name], new[name], threads)
        again = _ratio(old[name], new[name], threads) if ratio.lo > 1 else None
        decibels = _decibels(old[name], old), _decibels(new[name], new)
        lost = None if task is None else _lost(old[name], new[name], task)
        pairs.append(Pair(place, name, ratio, again, *decibels, lost))
    return pairs, len(shared) - len(changed)


def _runnable(bundle: Bundle) -> dict[str, Entry]:
    return {entry.name: entry for entry in find_entries([bundle])[0]}


def _content(entry: Entry) -> bytes:
    return entry.bundle.read(entry.artifact.path)


def _ratio(before: Entry, after: Entry, threads: int) -> Estimate:
    pair = [replace(before, name="before"), replace(after, name="after")]
    times = time_entries(pair, threads, Protocol())
    one, two = (times[e.name].latency_ns.astype(np.float64) for e in pair)
    return paired_ratio(one, two)


def _lost(before: Entry, after: Entry, task: Task) -> Estimate:
    return paired_drop(score_entry(before, task), score_entry(after, task))


def _decibels(entry: Entry, others: dict[str, Entry]) -> float | None:
    """Return the energy of all outputs over their noise, on the bundle's golden inputs."""
    base = others.get(f"{entry.artifact.backend}-{FLOAT32}")
    if base is None:
        return None
    inputs = golden_inputs(entry.bundle)
    found, wanted = (_run(e, inputs) for e in (entry, base))
    noise = np.square(found - wanted).sum()
    return None if noise == 0 else float(10 * np.log10(np.square(wanted).sum() / noise))


def _run(entry: Entry, inputs: tuple[np.ndarray, ...]) -> np.ndarray:
    with Runner(entry.bundle, entry.artifact) as runner:
        return np.concatenate([y.ravel().astype(np.float64) for y in runner(*inputs)])


def _row(pair: Pair) -> list[str]:
    return [
        pair.bundle,
        pair.file,
        _interval(pair.ratio),
        "" if pair.again is None else _interval(pair.again),
        "" if pair.before_db is None else f"{pair.before_db:.1f}",
        "" if pair.after_db is None else f"{pair.after_db:.1f}",
        "" if pair.lost is None else _points(pair.lost),
    ]


def _interval(ratio: Estimate) -> str:
    return with_interval(ratio.value, (ratio.lo, ratio.hi), ".3f")


def _points(share: Estimate) -> str:
    return with_interval(100 * share.value, (100 * share.lo, 100 * share.hi), "+.2f")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EdgedlError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
