"""Output folders that appear whole or not at all, and what a cut-off run needs to go on."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgedl.runtime.errors import BadInputError


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a staging folder beside ``path``; it becomes ``path`` only if the block succeeds.

    On any error, and on Ctrl-C, the staging folder is removed and ``path`` is as it was.

    Raises:
        BadInputError: ``path`` is a file, is not empty, or its parent cannot be written.
    """
    target = path.resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BadInputError(f"{path} exists and is not an empty folder: choose another --out")
    staging = target.with_name(f".{target.name}.{os.urandom(4).hex()}.partial")
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
def checkpoints_of(path: Path) -> Iterator[Path]:
    """Yield a hidden folder beside ``path`` for the checkpoints of stages that train.

    It is removed when the block succeeds. Otherwise it stays if anything is in it, so that the
    same command goes on from there.
    """
    target = path.resolve()
    folder = target.with_name(f".{target.name}.checkpoints")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
        shutil.rmtree(folder)
    finally:
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()
