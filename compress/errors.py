"""Errors of converters, and how to find the sentence in them that matters."""

from edgedl.runtime.errors import EdgedlError


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
