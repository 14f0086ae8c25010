"""A new model beside the one that runs: the same inputs for both, until it is clear enough."""

import time
from concurrent.futures import Future
from dataclasses import dataclass
from statistics import median
from threading import Lock

import numpy as np

from edgedl.runtime.backend import Array
from edgedl.runtime.bundle.manifest import Manifest
from edgedl.runtime.errors import BadInputError, IntegrityError
from edgedl.runtime.loaded_model import LoadedModel
from edgedl.runtime.selfcheck.golden import check_golden
from edgedl.runtime.tensors import Floats


@dataclass(frozen=True)
class SwapOutcome:
    """What became of a new model.

    Attributes:
        accepted: whether it runs now.
        reason: why not; empty if it does.
        compared: calls that both have run.
        slowdown: median time of the new one over the old one's; None where nothing was compared.
        same_class: share of samples for which the largest value of the first output is at the same
            place; None where nothing was compared.
    """

    accepted: bool
    reason: str = ""
    compared: int = 0
    slowdown: float | None = None
    same_class: float | None = None


class Shadow:
    """Runs an old and a new model on the same inputs, and decides.

    Attributes:
        new: the new model.
        future: of the outcome, for whoever waits for it.
    """

    def __init__(self, old: LoadedModel, new: LoadedModel, calls: int, max_slowdown: float) -> None:
        """Check that the new model gives its golden outputs.

        Raises:
            IntegrityError: it does not.
        """
        check = check_golden(new)
        if not check.passed:
            raise IntegrityError(
                f"{new.artifact.name} of {new.bundle.folder}: its outputs on this machine differ "
                f"by {check.max_abs_error:.3g} from those where it was made, allowed is "
                f"{check.tolerance:.3g}: the model is not replaced"
            )
        self.new = new
        self.future: Future[SwapOutcome] = Future()
        self._old, self._calls, self._max_slowdown = old, calls, max_slowdown
        self._lock = Lock()
        self._seconds: list[tuple[float, float]] = []
        self._same: list[float] = []

    def __call__(self, *inputs: Array) -> tuple[tuple[Floats, ...], SwapOutcome | None]:
        """Return what the old model computes, and the outcome if this call decides.

        Raises:
            BadInputError: as a call of the old model; such inputs are not compared.
        """
        start = time.perf_counter()
        wanted = self._old(*inputs)
        middle = time.perf_counter()
        try:
            found = self.new(*inputs)
        except Exception as error:
            # Whatever a runtime raises, the old model goes on.
            return wanted, self._outcome(f"it fails: {type(error).__name__}: {error}")
        seconds = middle - start, time.perf_counter() - middle
        if any(
            bool((np.isfinite(x) & ~np.isfinite(y)).any())
            for x, y in zip(wanted, found, strict=True)
        ):
            return wanted, self._outcome("it gives NaN or infinity where the model before did not")
        with self._lock:
            self._seconds.append(seconds)
            self._same.append(_same_class(wanted[0], found[0]))
            enough = len(self._seconds) >= self._calls
        return wanted, self._outcome("") if enough else None

    def _outcome(self, failure: str) -> SwapOutcome:
        with self._lock:
            seconds, same = list(self._seconds), list(self._same)
        if not seconds:
            return SwapOutcome(False, failure)
        old, new = (median(column) for column in zip(*seconds, strict=True))
        slowdown = new / old
        if not failure and slowdown > self._max_slowdown:
            failure = (
                f"it takes {slowdown:.2f} times as long as the model before, allowed is "
                f"{self._max_slowdown:g}"
            )
        return SwapOutcome(not failure, failure, len(seconds), slowdown, float(np.mean(same)))


def check_replacement(old: Manifest, new: Manifest) -> None:
    """Refuse a model that callers of another one could not call.

    Raises:
        BadInputError: its inputs or outputs have other names, shapes or types.
    """
    for kind, before, after in (
        ("inputs", old.inputs, new.inputs),
        ("outputs", old.outputs, new.outputs),
    ):
        if before != after:
            have, want = (
                ", ".join(f"{s.name} {s.dtype} {list(s.shape)}" for s in specs)
                for specs in (after, before)
            )
            raise BadInputError(f"the new model has other {kind}: {have}; expected {want}")


def _same_class(one: Floats, other: Floats) -> float:
    if one.ndim < 2:
        return float(np.array_equal(one, other))
    flat = (y.reshape(len(y), -1).argmax(1) for y in (one, other))
    return float(np.mean(np.equal(*flat)))
