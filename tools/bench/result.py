"""The records of ``result.json``: what was measured, with every interval and every gap."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from edgedl.runtime.bundle.certificates import Finding, Parity
from edgedl.runtime.bundle.files import atomic_write
from edgedl.runtime.errors import BadInputError, IntegrityError
from edgedl.runtime.measure.device import RunContext
from edgedl.runtime.measure.estimate import CONFIDENCE, Estimate
from edgedl.runtime.wording import nearest

RESULT, SAMPLES = "result.json", "samples.npz"

Interval = tuple[float, float]
DropVerdict = Literal[
    "no drop shown", "drop", "gain", "within budget", "over budget", "inconclusive"
]
SpeedVerdict = Literal["faster", "slower", "no difference shown"]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the result's records: immutable and strict."""


class Score(_Record, frozen=True):
    """Task score: metric name, mean value 0..1, samples, 95 % interval."""

    metric: str
    value: float
    n: int
    ci95: Interval


class Drop(_Record, frozen=True):
    """Score lost against the baseline on the same samples, in points (percent of the scale).

    Attributes:
        pp: mean loss; negative is a gain. ci95: its paired interval; None where there are too few
            samples for one.
        lost: samples scored lower than by the baseline. won: samples scored higher.
        p_value: McNemar's exact test that losses and wins are equally likely; None for scores
            other than 0 and 1.
        verdict: against zero, or against the budget if one was given.
        more_samples: where it is not clear whether the drop is within the budget (1 point if none
            was given), how many more should decide it; None also where no number would.
    """

    pp: float
    ci95: Interval | None
    lost: int
    won: int
    p_value: float | None
    verdict: DropVerdict
    more_samples: int | None = None

    @property
    def within_budget(self) -> bool:
        """Whether it certainly is, of a budget that was given."""
        return self.verdict == "within budget"


class Latency(_Record, frozen=True):
    """Latency of one call, batch 1.

    Attributes:
        median_ms: median of block medians. ci95: its interval over blocks.
        p90_ms, p99_ms: upper 99 % confidence bounds; None when ``n`` certifies no such bound.
        p90_needs, p99_needs: calls that would certify them.
        n: recorded calls. threads: of the runtime. scenario: as in MLPerf.
        settled: whether the warm-up reached a steady speed.
    """

    median_ms: float
    ci95: Interval
    p90_ms: float | None
    p99_ms: float | None
    p90_needs: int
    p99_needs: int
    n: int
    threads: int
    scenario: Literal["single_stream"]
    settled: bool


class Speedup(_Record, frozen=True):
    """Latency as a share of another's, from paired blocks; below 1 is faster.

    Attributes:
        ratio: this latency over the baseline's. ci95: its paired interval.
        threads: of both. verdict: "faster" or "slower" only if the interval excludes 0.98..1.02.
        same_runtime_ratio: over another float32 file of the same runtime, if there is one.
        same_runtime_ci95: its interval.
    """

    ratio: float
    ci95: Interval
    threads: int
    verdict: SpeedVerdict
    same_runtime_ratio: float | None
    same_runtime_ci95: Interval | None


class ColdStart(_Record, frozen=True):
    """Medians over fresh processes, and operators left to another device or slower kernels."""

    load_ms: float
    first_inference_ms: float
    processes: int
    fallbacks: tuple[str, ...] = ()


class Candidate(_Record, frozen=True):
    """One artifact with everything measured of it.

    ``saving_lost`` says why less of the theoretical speed-up shows; it is empty where it shows.
    ``repeated_weights`` says which values stages have made repeat, and ``zipped_bytes`` what size
    the file then has in an archive. ``findings`` are the parts of outputs that it destroys.
    """

    name: str
    backend: str
    precision: str
    runtime: str
    size_bytes: int
    score: Score
    drop: Drop
    latency: tuple[Latency, ...]
    speedup: tuple[Speedup, ...]
    cold_start: ColdStart | None
    parity: Parity | None
    theoretical_speedup: float | None = None
    saving_lost: str = ""
    repeated_weights: str = ""
    zipped_bytes: int | None = None
    findings: tuple[Finding, ...] = ()


class NotMeasured(_Record, frozen=True):
    """Something a reader may look for in vain, and why it is not there."""

    what: str
    why: str


class NoiseFloor(_Record, frozen=True):
    """The baseline against a second session of itself: what this machine can resolve today."""

    threads: int
    ratio: float
    ci95: Interval


class Recommendation(_Record, frozen=True):
    """The artifact to use.

    Attributes:
        name: of the artifact. reason: in one sentence with the numbers.
        notes: reasons to doubt the calibration or the training data; files that are not faster.
        budget_met: whether the strongest precision made is within the drop budget; None if no
            budget was given.
    """

    name: str
    reason: str
    notes: tuple[str, ...]
    budget_met: bool | None


class Attempt(_Record, frozen=True):
    """One recipe that was tried for a budget, on samples that the final score does not use.

    Attributes:
        recipe: its name.
        artifact: the file of it that came closest; None where none was made.
        drop: of that file. ratio: its latency over its own runtime's float32.
        ratio_ci95: the ratio's interval.
        outcome: what it was worth, in a few words, "fits" for each that could be chosen; or why it
            was not tried.
        seconds: that making and measuring its files took.
    """

    recipe: str
    artifact: str | None
    drop: Drop | None
    ratio: float | None
    ratio_ci95: Interval | None
    outcome: str
    seconds: float = 0.0


class Search(_Record, frozen=True):
    """How a recipe was chosen for a budget.

    Attributes:
        attempts: in the order they were tried.
        chosen: recipe of the bundle. met: whether it fits the budget on the samples below.
        samples: that chose it; the final score is of others.
    """

    attempts: tuple[Attempt, ...]
    chosen: str
    met: bool
    samples: int


class StepTime(_Record, frozen=True):
    """What a step of a job took.

    Attributes:
        step: what was done, and to what.
        kind: what was done.
        seconds: that passed.
        cpu_seconds: of all processors; those of processes that ended meanwhile count, too.
    """

    step: str
    kind: str
    seconds: float
    cpu_seconds: float


class Result(_Record, frozen=True):
    """One measured comparison.

    ``baseline`` is the file that times are relative to. ``network`` is the score of the float torch
    network, which drops are from; where it is None they are from the baseline's. ``alerts`` come
    before everything else, ``next_steps`` say what to do. ``steps`` are those of the job, in order.
    """

    title: str
    run_context: RunContext
    baseline: str
    candidates: tuple[Candidate, ...]
    noise_floor: tuple[NoiseFloor, ...]
    recommendation: Recommendation
    not_measured: tuple[NotMeasured, ...]
    max_drop_pp: float | None
    history: tuple[str, ...] = ()
    confidence: float = CONFIDENCE
    search: Search | None = None
    network: Score | None = None
    next_steps: tuple[str, ...] = ()
    alerts: tuple[str, ...] = ()
    steps: tuple[StepTime, ...] = ()
    schema_version: Literal[1] = 1

    def candidate(self, name: str) -> Candidate:
        """Return the candidate of this name."""
        return next(c for c in self.candidates if c.name == name)


def with_notes_first(result: Result, notes: Sequence[str]) -> Result:
    """Return a result with more notes in front of its recommendation's."""
    advice = result.recommendation
    advice = msgspec.structs.replace(advice, notes=(*notes, *advice.notes))
    return msgspec.structs.replace(result, recommendation=advice)


def interval(estimate: Estimate, factor: float = 1.0) -> Interval:
    """Return an estimate's interval, scaled."""
    return estimate.lo * factor, estimate.hi * factor


def write_result(folder: Path, result: Result, samples: dict[str, npt.NDArray[np.int64]]) -> None:
    """Write ``result.json`` and, beside it, every recorded call in nanoseconds."""
    with atomic_write(folder / RESULT) as out:
        out.write(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    with atomic_write(folder / SAMPLES) as out:
        np.savez_compressed(out, allow_pickle=False, **samples)


def load_result(path: Path) -> Result:
    """Read a ``result.json``, given itself or its folder.

    Raises:
        BadInputError: there is none.
        IntegrityError: it is not a whole result of this version.
    """
    file = path / RESULT if path.is_dir() else path
    if not file.is_file():
        raise BadInputError(f"{path} has no {RESULT}{_beside(path)}")
    try:
        return msgspec.json.decode(file.read_bytes(), type=Result)
    except msgspec.DecodeError as error:
        raise IntegrityError(f"{file} is not a result of this version: {error}") from error


def _beside(path: Path) -> str:
    """Return where a result may be instead: around a bundle, or under a name that is near."""
    if not path.exists():
        known = path.parent.iterdir() if path.parent.is_dir() else ()
        return nearest(str(path), [str(p) for p in known if (p / RESULT).is_file()])
    around = path.resolve().parent / RESULT
    return f": give the folder around it, {path.parent}" if around.is_file() else ""
