"""Refusing AMX tiles holds for this process and is seen by its children."""

import subprocess
import sys

import pytest

from edgedl.runtime.measure.device import run_context

CODE = """
import ctypes, os
from edgedl.runtime.measure.amx import REFUSED, refuse_amx
from edgedl.runtime.measure.device import run_context
print(refuse_amx())
print(REFUSED in os.environ, "amx_int8" in run_context().isa)
libc = ctypes.CDLL(None, use_errno=True)
print(libc.syscall(158, 0x1023, 18))
import onnxruntime
"""


@pytest.mark.skipif("amx_int8" not in run_context().isa, reason="this CPU has no AMX tiles")
def test_tiles_stay_refused() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sentence, seen, asked_again = done.stdout.splitlines()
    assert sentence == "AMX: refused to this process"
    assert seen == "True False"
    assert asked_again == "-1"


def test_a_cpu_without_tiles_is_no_error() -> None:
    code = "from edgedl.runtime.measure.amx import refuse_amx; print(refuse_amx())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("AMX: ")
