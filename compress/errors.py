"""Errors of converters and of users' code, and how to find what matters in them."""

from pathlib import Path

from edgedl.runtime.errors import BadInputError, EdgedlError


class ExportError(EdgedlError):
    """A converter refused the graph; the message names the operator or its reason."""


def root_cause(error: BaseException) -> BaseException:
    """Return the exception at the end of the ``__cause__`` chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its class."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def located(path: Path, error: BaseException) -> BadInputError:
    """Return an error that names the line of a user's file where an exception passed."""
    line = getattr(error, "lineno", None)
    trace = error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).resolve() == path.resolve():
            line = trace.tb_lineno
        trace = trace.tb_next
    where = f"{path}, line {line}" if line else str(path)
    return BadInputError(f"{where}: {type(error).__name__}: {error}")
