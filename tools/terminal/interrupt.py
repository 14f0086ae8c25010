"""Ctrl-C that is not lost in code which swallows it.

Python raises ``KeyboardInterrupt`` wherever the main thread happens to be; a library's bare
``except``, often one around an import, takes it for a failure of its own and goes on.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_requested = threading.Event()


@contextmanager
def remembered_interrupt() -> Iterator[None]:
    """Remember a Ctrl-C during the block, for ``stop_if_interrupted``.

    Where Ctrl-C is ignored, or somebody else's handler is in place, nothing changes.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    _requested.clear()
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _requested.clear()


def stop_if_interrupted() -> None:
    """Raise the interrupt again if it came and was swallowed.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed and the command still runs.
    """
    if _requested.is_set():
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    _requested.set()
    raise KeyboardInterrupt
