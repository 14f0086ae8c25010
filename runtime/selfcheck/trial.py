"""Try files in a process of their own: a crash or an endless loop there cannot be caught.

As a module it is that process. Into a journal, a file of its own that no runtime writes to, it
writes every artifact's name when it begins, and what became of it when it has ended.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np

from edgedl.runtime.backend import Backend
from edgedl.runtime.backends.runtimes import open_backend
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.golden import golden_inputs, has_golden
from edgedl.runtime.bundle.manifest import Artifact, Manifest
from edgedl.runtime.child_process import ending, last_line, python_module
from edgedl.runtime.errors import BadInputError, EdgedlError, FileFailedError, Told, tell
from edgedl.runtime.loaded_model import LoadedModel
from edgedl.runtime.selfcheck.golden import GoldenCheck, check_golden

MIB = 1 << 20
# Multiplies the limits.
FACTOR = "EDGEDL_TRIAL_LIMITS"
# A file may take this long, and for each MiB of it so much longer: the largest file seen takes 20 s
# to load, a small board is ten times as slow.
LIMIT_S, LIMIT_S_PER_MIB = 60, 4
# Memory for data: runtimes hold a file several times while they rewrite it.
LIMIT_MIB, LIMIT_TIMES_FILE = 4096, 20
# The parent waits so much longer, for a process that no signal ends, and for its imports.
WAIT_S = 60
BY_TIME = ("SIGALRM", "SIGXCPU")
# The exit code of a process that the parent has ended.
TIMED_OUT = 124
# Of what a runtime prints, so much is read.
STDERR_BYTES = 64 * 1024
# Where an engine is built for minutes, in a process of its own.
BUILD_LIMIT_S = 3600


class Trial(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of a file.

    Attributes:
        failure: that none should have, as a sentence whose subject is the artifact; empty if none.
        refused: the error of edgedl's own, as ``errors.told`` takes it; None if there was none.
        golden: how its golden outputs compare; None where it did not come to them, or there are
            none.
    """

    failure: str = ""
    refused: Told | None = None
    golden: GoldenCheck | None = None


class _Line(msgspec.Struct, frozen=True):
    """A line of the journal; without a trial where an artifact begins."""

    name: str
    trial: Trial | None = None


class _Request(msgspec.Struct, frozen=True):
    """What the process is given."""

    manifest: Manifest
    artifacts: tuple[Artifact, ...]
    limits_s: tuple[int, ...]
    memory_bytes: int | None
    backend: str | None
    threads: int


class NotStartedError(EdgedlError):
    """The process that tries files ended before it came to one: no file is to blame."""


def try_files(
    bundle: Bundle, artifacts: Sequence[Artifact], backend: str | None = None, threads: int = 1
) -> dict[str, Trial]:
    """Load artifacts of a bundle, and run their golden inputs, within limits of time and memory.

    Every artifact is tried, whatever the ones before it did.

    Args:
        bundle: with its golden inputs.
        artifacts: to try.
        backend: by name; None for that of each artifact.
        threads: of the runtime.

    Raises:
        NotStartedError: this system does not let a process be started, or that ended at once.
    """
    pending = list(artifacts)
    trials: dict[str, Trial] = {}
    while pending:
        try:
            done, lines = _try_in_child(bundle, pending, backend, threads)
        except OSError as error:
            raise NotStartedError(f"no process can be started to try files: {error}") from error
        if not lines:
            raise NotStartedError(
                f"the process that tries the files of {bundle.folder} ended before the first "
                f"({ending(done)}): {last_line(done.stderr)}"
            )
        for artifact, trial in zip(pending, lines, strict=False):
            (limit_s,), _ = limits(bundle, [artifact], backend)
            trials[artifact.name] = trial or Trial(_how_it_ended(done, limit_s))
        pending = pending[len(lines) :]
    return trials


def _how_it_ended(done: subprocess.CompletedProcess[str], limit_s: int) -> str:
    by_time = [-getattr(signal, kind) for kind in BY_TIME if hasattr(signal, kind)]
    if done.returncode in (*by_time, TIMED_OUT):
        return f"does not answer within {limit_s} s when it is loaded and run"
    return f"crashes its runtime when it is loaded or run ({ending(done)})"


def limits(
    bundle: Bundle, artifacts: Sequence[Artifact], backend: str | None
) -> tuple[tuple[int, ...], int | None]:
    """Return the seconds that each artifact may take, and the bytes of memory for data.

    Memory has no limit where CUDA is, which reserves more than there is. Both are multiplied by
    $EDGEDL_TRIAL_LIMITS, for boards that are slower or networks that are larger.

    Raises:
        BadInputError: that is no positive number.
    """
    sizes = [bundle.manifest.files[artifact.path].size_bytes for artifact in artifacts]
    backends = [open_backend(backend or artifact.backend) for artifact in artifacts]
    factor = _factor()
    seconds = tuple(
        # An alarm in 0 s is none.
        max(1, round(factor * _usual_s(size, b)))
        for size, b in zip(sizes, backends, strict=True)
    )
    memory = round(factor * (LIMIT_MIB * MIB + LIMIT_TIMES_FILE * max(sizes)))
    return seconds, None if any(b.on_gpu for b in backends) else memory


def _usual_s(size_bytes: int, backend: Backend) -> int:
    if backend.parses_apart:
        return BUILD_LIMIT_S
    return LIMIT_S + LIMIT_S_PER_MIB * size_bytes // MIB


def _factor() -> float:
    given = os.environ.get(FACTOR, "1")
    try:
        factor = float(given)
    except ValueError:
        factor = 0.0
    if not 0 < factor < 1e6:
        raise BadInputError(f"{FACTOR} is '{given}', expected a positive number")
    return factor


def _try_in_child(
    bundle: Bundle, artifacts: Sequence[Artifact], backend: str | None, threads: int
) -> tuple[subprocess.CompletedProcess[str], list[Trial | None]]:
    """Return how a child ended, and the trials of its journal, None for one without an end."""
    seconds, memory_bytes = limits(bundle, artifacts, backend)
    request = _Request(bundle.manifest, tuple(artifacts), seconds, memory_bytes, backend, threads)
    with tempfile.TemporaryDirectory() as place:
        journal, errors = Path(place) / "journal", Path(place) / "stderr"
        journal.touch()
        command = python_module(__name__, str(bundle.folder.resolve()), str(journal))
        with errors.open("wb") as stderr:
            try:
                code = subprocess.run(
                    command,
                    input=msgspec.json.encode(request),
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    check=False,
                    timeout=sum(seconds) + WAIT_S,
                ).returncode
            except subprocess.TimeoutExpired:
                code = TIMED_OUT
        with errors.open("rb") as said:
            text = said.read(STDERR_BYTES).decode(errors="replace")
        done = subprocess.CompletedProcess(command, code, "", text)
        return done, list(_read(journal).values())


def _read(journal: Path) -> dict[str, Trial | None]:
    """Return the trials of a journal; its last line may be cut where the process was ended."""
    *lines, _ = journal.read_text().split("\n")
    found = [msgspec.convert(json.loads(line), _Line) for line in lines]
    return {line.name: line.trial for line in found}


def _serve(folder: Path, journal: Path, request: _Request) -> None:
    # Of the manifest that was checked: the one in the folder may be another one by now.
    bundle = Bundle(folder, request.manifest)
    _limit(request)
    for artifact, limit_s in zip(request.artifacts, request.limits_s, strict=True):
        _write(journal, _Line(artifact.name))
        if hasattr(signal, "alarm"):
            # Its default ends the process, also where native code never returns; the parent may
            # have switched that off.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
            signal.alarm(limit_s)
        _write(journal, _Line(artifact.name, _try(bundle, artifact, request)))


def _limit(request: _Request) -> None:
    """Bound the memory for data, and the processor time, of this process."""
    try:
        import resource
    except ImportError:
        # Windows has no such limits.
        return
    # Every core may work all the time: libraries have threads of their own.
    bounds = [(resource.RLIMIT_CPU, (os.cpu_count() or 1) * sum(request.limits_s))]
    if request.memory_bytes is not None:
        bounds.append((resource.RLIMIT_DATA, request.memory_bytes))
    for kind, limit in bounds:
        hard = resource.getrlimit(kind)[1]
        soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (soft, hard))


def _write(journal: Path, line: _Line) -> None:
    # Differences may be infinite, which msgspec's JSON has not.
    with journal.open("a") as file:
        print(json.dumps(msgspec.to_builtins(line)), file=file)


def _try(bundle: Bundle, artifact: Artifact, request: _Request) -> Trial:
    backend = None if request.backend is None else open_backend(request.backend)
    try:
        with LoadedModel(bundle, artifact, request.threads, backend) as model:
            if artifact.golden_tolerances:
                return Trial(golden=check_golden(model))
            _run_anything(model)
            return Trial()
    except FileFailedError as error:
        kind = type(error.__cause__).__name__
        return Trial(f"raises {kind} when it is loaded or run: {error.reason}")
    except EdgedlError as error:
        return Trial(refused=tell(error))
    except Exception as error:
        # Runtimes raise anything.
        said = " ".join(str(error).split())
        return Trial(f"raises {type(error).__name__} when it is loaded or run: {said}")


def _run_anything(model: LoadedModel) -> None:
    """Run a file that has no golden outputs: on its golden inputs, or on zeros."""
    if has_golden(model.bundle):
        model(*golden_inputs(model.bundle))
        return
    shapes = [spec.network_shape for spec in model.artifact.inputs]
    dtypes = [spec.dtype for spec in model.bundle.manifest.inputs]
    zeros = [
        np.zeros([size or 1 for size in shape], dtype)
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]
    # Not every network takes sizes of 1: that is no fault of the file, a crash is.
    with suppress(Exception):
        model(*zeros)


if __name__ == "__main__":
    _serve(
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        msgspec.json.decode(sys.stdin.buffer.read(), type=_Request),
    )
