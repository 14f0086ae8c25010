"""How wide the terminal is that a command prints to."""

import shutil
import sys


def terminal_width() -> int | None:
    """Return the columns of the terminal; None where the output goes to a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
