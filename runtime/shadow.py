"""A new model beside the one that runs: the same inputs for both, until it is clear enough."""

import time
from concurrent.futures import Future
from dataclasses import dataclass
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
        # Running, it cannot be cancelled: its result is set by a call of somebody else's.
        self.future.set_running_or_notify_cancel()
        self._old, self._calls, self._max_slowdown = old, calls, max_slowdown
        self._lock = Lock()
        self._seconds: list[tuple[float, float]] = []
        self._same: list[float] = []
        self._known: set[tuple[tuple[int, ...], ...]] = set()

    def __call__(self, *inputs: Array) -> tuple[tuple[Floats, ...], SwapOutcome | None]:
        """Return what the old model computes, and the outcome if this call decides.

        Raises:
            BadInputError: as a call of the old model; such inputs are not compared.
        """
        start = time.perf_counter()
        wanted = self._old(*inputs)
        middle = time.perf_counter()
        try:
            shapes = tuple(np.shape(x) for x in inputs)
            if shapes not in self._known:
                # A runtime may compile its file for a new size, as the old one's did long ago.
                self.new(*inputs)
                self._known.add(shapes)
            begun = time.perf_counter()
            found = self.new(*inputs)
            seconds = middle - start, time.perf_counter() - begun
            failure = _fault(wanted, found)
            same = 0.0 if failure else _same_class(wanted[0], found[0])
        except Exception as error:
            # Whatever a runtime raises, the old model goes on.
            failure = f"it fails: {type(error).__name__}: {error}"
        if failure:
            return wanted, self._outcome(failure)
        with self._lock:
            self._seconds.append(seconds)
            self._same.append(same)
            enough = len(self._seconds) >= self._calls
        return wanted, self._outcome("") if enough else None

    def _outcome(self, failure: str) -> SwapOutcome:
        with self._lock:
            seconds, same = list(self._seconds), list(self._same)
        if not seconds:
            return SwapOutcome(False, failure)
        old, new = np.median(seconds, axis=0).tolist()
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


def _fault(wanted: tuple[Floats, ...], found: tuple[Floats, ...]) -> str:
    """Return what is wrong with a new model's outputs, given the old one's; empty if nothing is."""
    for x, y in zip(wanted, found, strict=True):
        if x.shape != y.shape:
            return f"it gives {list(y.shape)} where the model before gave {list(x.shape)}"
        if (np.isfinite(x) & ~np.isfinite(y)).any():
            return "it gives NaN or infinity where the model before did not"
    return ""


def _same_class(one: Floats, other: Floats) -> float:
    if one.ndim < 2 or one.size == 0:
        return float(np.array_equal(one, other))
    flat = (y.reshape(len(y), -1).argmax(1) for y in (one, other))
    return float(np.mean(np.equal(*flat)))
