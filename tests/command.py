"""What a call of the command gives a test."""

from collections.abc import Callable
from typing import NamedTuple


class Done(NamedTuple):
    """Exit code and output of a call."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


def assert_one_line(done: Done, code: int, *words: str) -> None:
    """Check the exit code, that stderr ends in one line of edgedl's, and that it says the words."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("edgedl:")]
    assert done.returncode == code, done.stderr
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0], lines[0]
