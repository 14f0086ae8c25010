"""Labelled pictures as arrays, and the one ``.npz`` layout they are stored in."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgedl.runtime.errors import BadInputError, IntegrityError
from edgedl.runtime.files import atomic_write


@dataclass(frozen=True)
class LabelledImages:
    """One split of an image data set.

    Attributes:
        images: uint8 [N, H, W, C], values 0..255.
        labels: int64 [N], class indices.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        """Check shapes and types, so that a broken file is named where it enters."""
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise BadInputError(
                f"images must be uint8 [N, H, W, C], got {self.images.dtype} {self.images.shape}"
            )
        if self.labels.shape != self.images.shape[:1]:
            raise BadInputError(
                f"{len(self.images)} images but {self.labels.shape} labels: one label per image"
            )

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of samples, and the shape of one."""
        return self.images.shape

    def digest(self) -> str:
        """Return the sha256 of pixels and labels, independent of how they are stored."""
        h = hashlib.sha256(np.ascontiguousarray(self.images).tobytes())
        h.update(np.ascontiguousarray(self.labels, dtype=np.int64).tobytes())
        return h.hexdigest()


def write_splits(path: Path, splits: dict[str, LabelledImages]) -> None:
    """Write splits to one compressed ``.npz``; the file appears whole or not at all.

    Raises:
        OSError: when the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for name, split in splits.items():
        arrays[f"{name}_images"] = split.images
        arrays[f"{name}_labels"] = split.labels.astype(np.uint8)
    with atomic_write(path) as out:
        np.savez_compressed(out, allow_pickle=False, **arrays)


def read_split(path: Path, name: str) -> LabelledImages:
    """Read one split of a file that ``write_splits`` made.

    Raises:
        IntegrityError: when the file is damaged or holds no such split.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return LabelledImages(
                archive[f"{name}_images"], archive[f"{name}_labels"].astype(np.int64)
            )
    except Exception as error:
        # A damaged archive raises a dozen classes; each means that it is damaged.
        reason = " ".join(str(error).split())
        raise IntegrityError(
            f"{path} is damaged or has no split '{name}' ({reason}): delete it and fetch it again"
        ) from error
