"""What a call of the command gives a test."""

from collections.abc import Callable
from typing import NamedTuple


class Done(NamedTuple):
    """Exit code and output of a call."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]
