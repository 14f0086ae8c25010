"""Have an engine built in a process of its own, and say how far it is."""

import json
import subprocess
import tempfile
import time
from pathlib import Path
from threading import Timer
from typing import IO, Any, cast

import msgspec

from edgedl.runtime.child_process import describe_exit, last_line, python_module
from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.progress import SILENT, Progress
from edgedl.runtime.tensorrt.build import BuildSettings, Built, EngineRefusedError
from edgedl.runtime.tensorrt.build_process import BUILT, MODEL, SETTINGS, TIMINGS
from edgedl.runtime.wording import about

ERRORS = {
    error.__name__: error for error in (EngineRefusedError, BadInputError, BackendUnavailableError)
}

NOTE_S = 1.0


def build_engine(
    model: bytes,
    settings: BuildSettings,
    timings: bytes = b"",
    progress: Progress = SILENT,
    timeout_s: float | None = None,
) -> Built:
    """Build an engine of an ONNX file.

    Args:
        model: the file.
        settings: how.
        timings: of an earlier build.
        progress: is told how far it is, and how long it will take.
        timeout_s: after which it is given up; None for never.

    Raises:
        EngineRefusedError: NVIDIA's parser or builder refuses the file, crashes over it, or takes
            longer than is allowed.
        BadInputError: the settings ask for what the library does not have.
        BackendUnavailableError: the library is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="edgedl-engine-") as name:
        folder = Path(name)
        (folder / MODEL).write_bytes(model)
        (folder / SETTINGS).write_bytes(msgspec.json.encode(settings))
        (folder / TIMINGS).write_bytes(timings)
        _run(folder, progress, timeout_s)
        return msgspec.msgpack.decode((folder / BUILT).read_bytes(), type=Built)


def _run(folder: Path, progress: Progress, timeout_s: float | None) -> None:
    command = python_module("edgedl.runtime.tensorrt.build_process", str(folder))
    with (folder / "stderr").open("w+") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        timer = None if timeout_s is None else Timer(timeout_s, process.kill)
        start = time.monotonic()
        try:
            if timer is not None:
                timer.start()
            said = _listen(cast(IO[str], process.stdout), progress)
            code = process.wait()
        finally:
            if timer is not None:
                timer.cancel()
            process.kill()
            process.wait()
        errors.seek(0)
        complaint = last_line(errors.read())
    if timeout_s is not None and time.monotonic() - start >= timeout_s:
        raise EngineRefusedError(f"no engine within {timeout_s:g} s")
    if "error" in said:
        raise ERRORS[said["error"]](said["reason"])
    if code != 0 or not (folder / BUILT).exists():
        raise EngineRefusedError(
            f"the builder's process ended with {describe_exit(code)}: {complaint}"
        )


def _listen(output: IO[str], progress: Progress) -> dict[str, Any]:
    """Pass on how far it is, once a second; return the last thing that was said."""
    start = told = time.monotonic()
    said: dict[str, Any] = {}
    for line in output:
        if not line.startswith("{"):
            continue
        said = json.loads(line)
        share, now = said.get("share", 0.0), time.monotonic()
        if share > 0 and now >= told + NOTE_S:
            told, left = now, (now - start) * (1 - share) / share
            progress.note(f"{100 * share:.0f} %, {about(left)} left")
    return said
