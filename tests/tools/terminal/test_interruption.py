"""A run that is cut off leaves nothing half-written behind."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgedl.runtime.bundle.files import atomic_write
from edgedl.runtime.errors import BadInputError
from edgedl.tools.terminal.workspace import new_folder, only_run


@pytest.mark.slow
def test_ctrl_c_removes_the_staging_folder(subject_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "results" / "out"
    command = ["compress", f"{subject_file}:subject", "--target", "ort", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "edgedl", *command],
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background makes its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list(out.parent.glob(".out.*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(out.parent.glob(".out.*")), "the run never started"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    # Python ends by the signal itself where it hit code run by ``exec``: a shell says 130 to both.
    assert process.returncode in (130, -signal.SIGINT)
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert list(out.parent.iterdir()) == []


# Signals are raised in a process of their own: in a worker that runs other tests, a library's
# handler may be in place.
_SWALLOWED = """
import signal, sys
from contextlib import suppress
from pathlib import Path
from edgedl.tools.terminal.interrupt import remembered_interrupt, stop_if_interrupted
from edgedl.tools.terminal.progress import steps
from edgedl.tools.terminal.workspace import new_folder

signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    with remembered_interrupt(), new_folder(Path(sys.argv[1])), steps("compress", 2) as progress:
        progress.step("first")
        with suppress(BaseException):
            signal.raise_signal(signal.SIGINT)
        progress.step("second")
except KeyboardInterrupt:
    print("interrupted")
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
stop_if_interrupted()
print("forgotten")
"""

_IGNORED = """
import signal
from edgedl.tools.terminal.interrupt import remembered_interrupt, stop_if_interrupted

signal.signal(signal.SIGINT, signal.SIG_IGN)
with remembered_interrupt():
    signal.raise_signal(signal.SIGINT)
    stop_if_interrupted()
print("went on")
"""


def _run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_swallowed_ctrl_c_stops_at_the_next_step(tmp_path: Path) -> None:
    done = _run(_SWALLOWED, str(tmp_path / "out"))
    assert done.stdout.split() == ["interrupted", "forgotten"], done.stderr
    assert "first" in done.stderr
    assert "second" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    done = _run(_IGNORED)
    assert done.stdout.split() == ["went", "on"], done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a file-size limit")
def test_full_disk_is_one_line(subject_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "results" / "out"
    limited = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "from edgedl.tools.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    command = ["compress", f"{subject_file}:subject", "--target", "ort", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-B", "-c", limited, *command], capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert "File too large" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert list(out.parent.iterdir()) == []


def test_new_folder_appears_only_on_success(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"

    def fail() -> None:
        with new_folder(target) as staging:
            (staging / "half.txt").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(target.parent.iterdir()) == []
    with new_folder(target) as staging:
        (staging / "whole.txt").write_text("whole")
        assert not target.exists()
    assert [p.name for p in target.iterdir()] == ["whole.txt"]


def test_atomic_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail() -> None:
        with atomic_write(path) as out:
            out.write(b"new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_runs_do_not_write_one_folder(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with only_run(out):
        with pytest.raises(BadInputError, match="another run is writing"), only_run(out):
            pass
        with only_run(tmp_path / "deep" / "other"):
            pass
    with only_run(out):
        pass
    assert list(out.parent.iterdir()) == []
