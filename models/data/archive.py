"""The one ``.npz`` layout of fetched data sets: arrays named SPLIT_FIELD."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edgedl.runtime.bundle.files import atomic_write
from edgedl.runtime.errors import IntegrityError

Fields = Mapping[str, npt.NDArray[np.generic]]
T = TypeVar("T")


def write_archive(path: Path, splits: Mapping[str, Fields]) -> None:
    """Write the fields of every split, compressed; the file appears whole or not at all.

    Raises:
        OSError: when the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"{name}_{field}": x for name, split in splits.items() for field, x in split.items()}
    with atomic_write(path) as out:
        np.savez_compressed(out, allow_pickle=False, **arrays)


def read_archive(path: Path, name: str, fields: tuple[str, ...], build: Callable[..., T]) -> T:
    """Return ``build`` of the fields of one split, in their order.

    Raises:
        IntegrityError: when the file is damaged or holds no such split.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return build(*(archive[f"{name}_{field}"] for field in fields))
    except Exception as error:
        # A damaged archive raises a dozen classes; each means that it is damaged.
        reason = " ".join(str(error).split())
        raise IntegrityError(
            f"{path} is damaged or has no split '{name}' ({reason}): delete it and fetch it again"
        ) from error
