"""Try files in a process of their own: a crash or an endless loop there cannot be caught.

As a module it is that process. Into a journal, a file of its own that no runtime writes to, it
writes every artifact's name when it begins, and what became of it when it has ended.
"""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edgedl.runtime.backends.runtimes import open_backend
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.golden import golden_inputs, has_golden
from edgedl.runtime.bundle.manifest import Artifact, Manifest
from edgedl.runtime.child_process import ending, last_line, without_working_folder
from edgedl.runtime.errors import EdgedlError, FileFailedError, Told, tell
from edgedl.runtime.loaded_model import LoadedModel
from edgedl.runtime.selfcheck.golden import GoldenCheck, check_golden

MIB = 1 << 20
# A file may take this long, and for each MiB of it so much longer: the largest file seen takes 20 s
# to load, a small board is ten times as slow.
LIMIT_S, LIMIT_S_PER_MIB = 60, 4
# Memory for data: runtimes hold a file several times while they rewrite it.
LIMIT_MIB, LIMIT_TIMES_FILE = 4096, 20
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

    folder: str
    manifest: Manifest
    journal: str
    artifacts: tuple[Artifact, ...]
    limits_s: tuple[int, ...]
    memory_bytes: int | None
    backend: str | None
    threads: int


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
        EdgedlError: the process ended before it came to an artifact.
        OSError: this system does not let a process be started.
    """
    pending = list(artifacts)
    trials: dict[str, Trial] = {}
    while pending:
        done, lines = _try_in_child(bundle, pending, backend, threads)
        if not lines:
            raise EdgedlError(
                f"the process that tries the files of {bundle.folder} ended before the first "
                f"({ending(done)}): {last_line(done.stderr)}"
            )
        for artifact, trial in zip(pending, lines, strict=False):
            (limit_s,), _ = limits(bundle, [artifact], backend)
            trials[artifact.name] = trial or Trial(_how_it_ended(done, limit_s))
        pending = pending[len(lines) :]
    return trials


def _how_it_ended(done: subprocess.CompletedProcess[str], limit_s: int) -> str:
    by_time = [getattr(signal, kind, 0) for kind in ("SIGALRM", "SIGXCPU")]
    if -done.returncode in by_time and done.returncode:
        return f"does not answer within {limit_s} s when it is loaded and run"
    return f"crashes its runtime when it is loaded or run ({ending(done)})"


def limits(
    bundle: Bundle, artifacts: Sequence[Artifact], backend: str | None
) -> tuple[tuple[int, ...], int | None]:
    """Return the seconds that each artifact may take, and the bytes of memory for data.

    Memory has no limit where CUDA is, which reserves more than there is.
    """
    sizes = [bundle.manifest.files[artifact.path].size_bytes for artifact in artifacts]
    builds = [open_backend(backend or artifact.backend).parses_apart for artifact in artifacts]
    seconds = tuple(
        BUILD_LIMIT_S if long else LIMIT_S + LIMIT_S_PER_MIB * size // MIB
        for size, long in zip(sizes, builds, strict=True)
    )
    memory = LIMIT_MIB * MIB + LIMIT_TIMES_FILE * max(sizes)
    return seconds, None if any(builds) else memory


def _try_in_child(
    bundle: Bundle, artifacts: Sequence[Artifact], backend: str | None, threads: int
) -> tuple[subprocess.CompletedProcess[str], list[Trial | None]]:
    """Return how a child ended, and the trials of its journal, None for one without an end."""
    with tempfile.TemporaryDirectory() as place:
        journal = Path(place) / "journal"
        journal.touch()
        request = _Request(
            str(bundle.folder.resolve()),
            bundle.manifest,
            str(journal),
            tuple(artifacts),
            *limits(bundle, artifacts, backend),
            backend,
            threads,
        )
        done = subprocess.run(
            [sys.executable, "-m", "edgedl.runtime.selfcheck.trial"],
            input=msgspec.json.encode(request).decode(),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env=without_working_folder(),
        )
        lines = [
            msgspec.convert(json.loads(line), _Line) for line in journal.read_text().splitlines()
        ]
        return done, list({line.name: line.trial for line in lines}.values())


def _serve(request: _Request) -> None:
    # Of the manifest that was checked: the one in the folder may be another one by now.
    bundle = Bundle(Path(request.folder), request.manifest)
    journal = Path(request.journal)
    _limit(request)
    for artifact, limit_s in zip(request.artifacts, request.limits_s, strict=True):
        _write(journal, _Line(artifact.name))
        if hasattr(signal, "alarm"):
            # Its default ends the process, also where native code never returns.
            signal.alarm(limit_s)
        _write(journal, _Line(artifact.name, _try(bundle, artifact, request)))


def _limit(request: _Request) -> None:
    """Bound the memory for data, and the processor time, of this process."""
    try:
        import resource
    except ImportError:
        # Windows has no such limits.
        return
    limits = [(resource.RLIMIT_CPU, request.threads * sum(request.limits_s))]
    if request.memory_bytes is not None:
        limits.append((resource.RLIMIT_DATA, request.memory_bytes))
    for kind, limit in limits:
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
            if has_golden(bundle):
                model(*golden_inputs(bundle))
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


if __name__ == "__main__":
    _serve(msgspec.json.decode(sys.stdin.read(), type=_Request))
