"""Keep what libraries print about themselves off the terminal."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

# Descriptors and filters are the process's: a second thread would save, and later restore, those
# that the first has put there.
_LOCK = RLock()


@contextmanager
def without_warnings() -> Iterator[None]:
    """Drop warnings and log records below errors, of Python code; what it prints is shown.

    One thread at a time.
    """
    with _LOCK:
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            logging.disable(before)


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what native code prints, at the level of file descriptors, and warnings.

    Only for code in C++ that has no switch for it: LiteRT's interpreter, its converter and
    quantizer, and ONNX Runtime's quantizer print notes about modes they do not use. Their failures
    arrive as exceptions. One thread at a time.
    """
    with _LOCK, _without_output():
        yield


@contextmanager
def _without_output() -> Iterator[None]:
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(sink)
