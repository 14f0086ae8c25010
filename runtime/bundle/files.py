"""Files that are written whole or not at all, and read only where they are plain."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edgedl.runtime.errors import IntegrityError


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a binary file that replaces ``path`` only if the block ends without an error.

    Raises:
        OSError: when the folder cannot be written or the disk is full; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")
    try:
        with temporary.open("xb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_plain_file(path: Path, limit_bytes: int) -> bytes:
    """Return the content of a file that is neither a link nor linked to.

    Raises:
        IntegrityError: it is something else, or larger than ``limit_bytes``.
    """
    try:
        # Non-blocking: opening a named pipe would wait for a writer.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        handle = os.open(path, flags)
    except OSError as error:
        raise IntegrityError(f"{path} cannot be opened ({error.strerror})") from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise IntegrityError(f"{path} is not a plain file of its own (link, folder or device)")
        if status.st_size > limit_bytes:
            raise IntegrityError(
                f"{path} has {status.st_size} bytes, at most {limit_bytes} are expected: "
                "copy the bundle again"
            )
        with os.fdopen(os.dup(handle), "rb") as file:
            return file.read()
    finally:
        os.close(handle)
