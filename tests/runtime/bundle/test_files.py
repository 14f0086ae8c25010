"""Atomic writing: the old content or the new one, never a part, and nothing left behind."""

import os
import signal
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgedl.runtime.bundle.files import atomic_write


def test_new_file(tmp_path):
    with atomic_write(tmp_path / "a.bin") as out:
        out.write(b"first ")
        assert not (tmp_path / "a.bin").exists()
        out.write(b"second")
    assert os.listdir(tmp_path) == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"first second"


def break_off(path, content, error):
    with atomic_write(path) as out:
        out.write(content)
        raise error


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(old=st.binary(max_size=200), new=st.binary(max_size=200), cut=st.integers(0, 200))
def test_old_or_new_never_a_part(tmp_path, old, new, cut):
    path = tmp_path / "a.bin"
    path.write_bytes(old)
    with pytest.raises(ZeroDivisionError):
        break_off(path, new[:cut], ZeroDivisionError)
    assert path.read_bytes() == old
    with atomic_write(path) as out:
        out.write(new)
    assert path.read_bytes() == new
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_interruption_leaves_nothing(tmp_path, stop):
    with pytest.raises(stop):
        break_off(tmp_path / "a.bin", b"half", stop)
    assert os.listdir(tmp_path) == []


def test_two_writers_do_not_mix(tmp_path):
    with atomic_write(tmp_path / "a.bin") as one, atomic_write(tmp_path / "a.bin") as two:
        one.write(b"1" * 10)
        two.write(b"2" * 10)
    assert (tmp_path / "a.bin").read_bytes() == b"1" * 10
    assert os.listdir(tmp_path) == ["a.bin"]


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(OSError, match="missing"), atomic_write(tmp_path / "missing" / "a.bin"):
        pass
    assert os.listdir(tmp_path) == []


def test_killed_process_leaves_the_old_content(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from edgedl.runtime.bundle.files import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as out:\n"
        "    out.write(b'new'); out.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
