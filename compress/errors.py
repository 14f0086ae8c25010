"""Errors of converters and of users' code, and how to find what matters in them."""

import os
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from edgedl.runtime.errors import BadInputError, EdgedlError

# Folders of installed packages, wherever they are.
_PACKAGES = frozenset({"site-packages", "dist-packages"})
_STANDARD_LIBRARY = Path(os.__file__).resolve().parent
# Attribute of an exception: the graph that was worked on, as text.
_GRAPH = "edgedl_graph"


class ExportError(EdgedlError):
    """A converter refused the graph; the message names the operator or its reason."""


@dataclass(frozen=True)
class UserLine:
    """A line of a user's file where an exception was raised, or where it called what raised it.

    Attributes:
        file: the user's.
        number: of the line, from 1; None where it is not known.
        error: the exception.
    """

    file: Path
    number: int | None
    error: BaseException

    @property
    def place(self) -> str:
        """Return file and line, the file as seen from the working directory where it is below."""
        path = os.path.relpath(self.file) if self.file.is_relative_to(Path.cwd()) else self.file
        return str(path) if self.number is None else f"{path}, line {self.number}"

    def __str__(self) -> str:
        """Return one line: the place, the class, and the message."""
        return f"{self.place}: {type(self.error).__name__}: {' '.join(str(self.error).split())}"


def root_cause(error: BaseException) -> BaseException:
    """Return the exception at the end of the ``__cause__`` chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its class."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def user_line(error: BaseException) -> UserLine | None:
    """Return the user's line that an exception comes from; None where it comes from elsewhere.

    It is the user's if the innermost frame that is neither an installed package's nor the standard
    library's is of a file outside edgedl. An exception that edgedl raised from another counts as
    that one.
    """
    for each in _with_causes(error):
        if isinstance(each, SyntaxError) and each.filename and _is_users(Path(each.filename)):
            return UserLine(Path(each.filename), each.lineno, each)
        frames = [f for f in traceback.walk_tb(each.__traceback__) if not _is_library(f[0])]
        if frames and not _is_edgedl(frames[-1][0]):
            frame, line = frames[-1]
            return UserLine(Path(frame.f_code.co_filename), line, each)
    return None


def located(path: Path, error: BaseException) -> BadInputError:
    """Return an error that names the user's line which an exception comes from.

    Args:
        path: the user's file that was running: its last line counts where no line of the user's
            has raised, as when edgedl refuses what it was given there.
        error: the exception.
    """
    found = user_line(error)
    if found is None:
        own = path.resolve()
        lines = [
            line
            for frame, line in traceback.walk_tb(error.__traceback__)
            if Path(frame.f_code.co_filename).resolve() == own
        ]
        found = UserLine(path, lines[-1] if lines else None, error)
    return BadInputError(str(found))


def attach_graph(error: BaseException, text: str) -> None:
    """Let an exception carry the graph that was worked on, unless it carries one already."""
    error.__dict__.setdefault(_GRAPH, text)


def attached_graph(error: BaseException) -> str | None:
    """Return the graph that an exception, or one that it was raised from, carries."""
    found = (each.__dict__.get(_GRAPH) for each in _with_causes(error))
    return next((text for text in found if isinstance(text, str)), None)


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    following: BaseException | None = error
    while following is not None:
        yield following
        following = following.__cause__


def _is_library(frame: FrameType) -> bool:
    """Say whether code is of an installed package but edgedl, or of no file at all."""
    return not _is_edgedl(frame) and not _is_users(Path(frame.f_code.co_filename))


def _is_edgedl(frame: FrameType) -> bool:
    name = str(frame.f_globals.get("__name__", ""))
    return name == "edgedl" or name.startswith("edgedl.")


def _is_users(path: Path) -> bool:
    """Say whether a file is there, and neither of an installed package nor of Python's own."""
    inside = path.resolve().is_relative_to(_STANDARD_LIBRARY)
    return path.is_file() and not inside and not _PACKAGES.intersection(path.parts)
