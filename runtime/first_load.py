"""Load a file; one that is new on this machine has to give its golden outputs first.

A file that nobody has signed is new to everybody: a process of its own loads it first, within
limits, so that a file made to crash or to take all memory costs that process only.
"""

import logging
import sys
import time
import warnings

from edgedl.runtime.backend import Backend
from edgedl.runtime.backends.runtimes import name_of
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.errors import FileFailedError, told
from edgedl.runtime.known_files import FileKey, Known, KnownFiles
from edgedl.runtime.loaded_model import LoadedModel
from edgedl.runtime.selfcheck.golden import GoldenCheck, check_golden
from edgedl.runtime.selfcheck.trial import NotStartedError, try_files

LOG = logging.getLogger(__name__)


class OtherOutputsWarning(UserWarning):
    """A file computes something else on this machine than where it was made."""


def load_file(
    bundle: Bundle, artifact: Artifact, threads: int, backend: Backend, instead: str = ""
) -> LoadedModel:
    """Verify, try if need be, and load one artifact.

    A backend of the user's own, or one of edgedl's with options of one's own, is trusted with what
    it loads: nothing is tried there.

    Args:
        bundle: that has it.
        artifact: to load.
        threads: of the runtime.
        backend: that runs it.
        instead: why it runs and not what was asked for.

    Raises:
        FileFailedError: it crashes its runtime, or takes too long or too much memory.
        EdgedlError: as ``LoadedModel``, or the golden vectors are damaged.
    """
    name = name_of(backend)
    if name is None:
        return LoadedModel(bundle, artifact, threads, backend, instead=instead)
    files = KnownFiles.of_user()
    key = FileKey.of(bundle, artifact, backend)
    known = files.find(key)
    is_new = known is None
    start = time.perf_counter()
    if known is None and bundle.signer is None and not backend.parses_apart:
        known = _try_apart(bundle, artifact, name, threads)
    took_s = time.perf_counter() - start
    model = LoadedModel(bundle, artifact, threads, backend, instead=instead)
    if known is None:
        start = time.perf_counter()
        try:
            known = _known(check_golden(model) if artifact.golden_tolerances else None)
        except BaseException:
            model.close()
            raise
        took_s += time.perf_counter() - start
    if is_new:
        files.keep(key, known)
        model.tried_s = took_s
        LOG.info("%s is new here: to try it took %.2f s", artifact.name, took_s)
    model.differs = known.differs
    if known.differs:
        try:
            warnings.warn(f"{artifact.name}: {known.differs}", OtherOutputsWarning, stacklevel=3)
        except OtherOutputsWarning:
            model.close()
            raise
    return model


def mark_known(bundle: Bundle, artifact: Artifact, backend: Backend) -> None:
    """Say of a file that was made and run on this machine that it gives its golden outputs."""
    KnownFiles.of_user().keep(FileKey.of(bundle, artifact, backend), Known(""))


def _try_apart(bundle: Bundle, artifact: Artifact, backend: str, threads: int) -> Known | None:
    """Return what a process of its own finds of a file; None where none gets that far."""
    try:
        if not sys.executable or getattr(sys, "frozen", False):
            # The program of a frozen application takes other arguments than Python's.
            raise NotStartedError("this program is not Python's, so no process can be started")
        trial = try_files(bundle, [artifact], backend, threads)[artifact.name]
    except NotStartedError as error:
        LOG.warning("%s is loaded without a trial: %s", artifact.name, error)
        return None
    if trial.refused is not None:
        raise told(trial.refused)
    if trial.failure:
        raise FileFailedError(artifact.name, f"tried in a process of its own, it {trial.failure}")
    return _known(trial.golden)


def _known(golden: GoldenCheck | None) -> Known:
    if golden is None or golden.passed:
        return Known("")
    why = f"; {golden.why}" if golden.why else ""
    return Known(
        "its golden outputs on this machine differ from those where it was made by "
        f"{golden.max_abs_error:.3g}, allowed is {golden.tolerance:.3g}{why}"
    )
