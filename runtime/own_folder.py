"""Folders of the user's own: nobody else can write there, so what is read there can be believed."""

import os
import tempfile
from pathlib import Path

from edgedl.runtime.errors import BadInputError, IntegrityError

OTHERS_WRITE = 0o022


def user_folder(name: str, variable: str) -> Path:
    """Return a folder of this user, which may not be there yet.

    Args:
        name: of the folder, in edgedl's part of the user's cache folder.
        variable: of the environment, that names another folder instead.

    Raises:
        BadInputError: the user has no home folder, and the variable is not set.
    """
    own = os.environ.get(variable)
    if own:
        return Path(own)
    try:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise BadInputError(
            f"this user has no home folder for {name}: set {variable} to a folder"
        ) from error
    return Path(cache) / "edgedl" / name


def refuse_foreign(path: Path) -> None:
    """Refuse a file or folder that is not the user's, or that others can write.

    Raises:
        IntegrityError: it is one, or a link.
    """
    found = path.lstat()
    # Windows has no such owners; there, a user's folder is the user's alone.
    is_mine = not hasattr(os, "getuid") or (
        found.st_uid == os.getuid() and not found.st_mode & OTHERS_WRITE
    )
    if not is_mine or path.is_symlink():
        raise IntegrityError(
            f"{path} is a link, or others than you can write it, so nothing from it is used: "
            "remove it, or take the others' right to write (chmod go-w)"
        )


def write_own(path: Path, content: bytes) -> None:
    """Write a file that only the user can read and write, whole or not at all.

    Raises:
        OSError: the folder cannot be written, or the disk is full; nothing is left.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
