"""Output folders that appear whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from edgedl.runtime.errors import BadInputError

# What stands in the names of staging folders.
_RANDOM_BYTES = 4
_RANDOM = "[0-9a-f]" * 2 * _RANDOM_BYTES


def check_new(path: Path) -> Path:
    """Return the whole path of a folder that can be made; nothing is written.

    Raises:
        BadInputError: ``path`` is a file, is not empty, or a file stands where a folder above it
            should be.
    """
    target = _target(path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BadInputError(f"{path} exists and is not an empty folder: choose another --out")
    above = next(folder for folder in target.parents if folder.exists())
    if not above.is_dir():
        raise BadInputError(f"{path} cannot be written ({above} is a file): choose another --out")
    return target


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a staging folder beside ``path``; it becomes ``path`` only if the block succeeds.

    On any error, and on Ctrl-C, the staging folder is removed and ``path`` is as it was.

    Raises:
        BadInputError: ``path`` is a file, is not empty, or its parent cannot be written.
    """
    target = check_new(path)
    staging = target.with_name(f".{target.name}.{os.urandom(_RANDOM_BYTES).hex()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
    except OSError as error:
        raise BadInputError(f"{path} cannot be written ({error.strerror})") from error
    try:
        yield staging
        os.replace(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


@contextmanager
def only_run(path: Path) -> Iterator[None]:
    """Keep other runs from the same output folder, for as long as the block takes.

    The system frees the lock of a run that was killed; what it left half-written is removed.

    Raises:
        BadInputError: another run has it, or the parent folder cannot be written.
    """
    from filelock import FileLock, Timeout

    target = _target(path)
    place = target.with_name(f".{target.name}.lock")
    lock = FileLock(place, timeout=0)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # The lock takes a folder in which nothing can be made for one that another run holds.
        place.touch()
        lock.acquire()
    except Timeout as error:
        raise BadInputError(
            f"another run is writing {path}: wait for it, or choose another --out"
        ) from error
    except OSError as error:
        raise BadInputError(f"{path} cannot be written ({error.strerror})") from error
    try:
        for left in target.parent.glob(f".{escape(target.name)}.{_RANDOM}.partial"):
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        place.unlink(missing_ok=True)
        lock.release()


def _target(path: Path) -> Path:
    target = path.resolve()
    if not target.name:
        raise BadInputError(f"{path} cannot be a new folder: choose another --out")
    return target
