"""What became of a process that edgedl has started."""

import json
import signal
import subprocess
import sys
from typing import Any


def ending(done: subprocess.CompletedProcess[str]) -> str:
    """Return how a process ended.

    >>> ending(subprocess.CompletedProcess([], -11)), ending(subprocess.CompletedProcess([], 1))
    ('signal 11 (SIGSEGV)', 'exit code 1')
    """
    return describe_exit(done.returncode)


def describe_exit(code: int) -> str:
    """Return what an exit code says, a negative one being the signal that ended the process."""
    if code >= 0:
        return f"exit code {code}"
    names = {number.value: number.name for number in signal.Signals}
    return f"signal {-code} ({names[-code]})" if -code in names else f"signal {-code}"


def python_module(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of edgedl's in a process of its own.

    It does not import from the folder it is started in, which Python would put first (3.10 has no
    setting against that). Where else this process imports from comes last: such a folder, a user's
    own say, may have files that are called like modules of the standard library.
    """
    start = (
        "import json, runpy, sys; sys.path += json.loads(sys.argv.pop(1)); "
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    elsewhere = json.dumps([path for path in sys.path if path])
    return [sys.executable, "-I", "-c", start, elsewhere, *arguments]


def last_line(text: str) -> str:
    r"""Return the last line of an output that says something: a traceback's is the error.

    >>> last_line("Traceback\nKeyError: 'x'\n\n"), last_line("")
    ("KeyError: 'x'", 'it said nothing')
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any] | None:
    r"""Return the JSON object that a process has printed; other lines may be around it.

    >>> answer(subprocess.CompletedProcess([], 0, '{"load_ms": 1.5}\ndriver unloaded\n'))
    {'load_ms': 1.5}
    """
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    return None
