"""Labelled pictures as arrays."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgedl.models.data.archive import read_archive, write_archive
from edgedl.runtime.errors import BadInputError


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
    """Write splits to one file, labels as single bytes; see ``write_archive``."""
    write_archive(
        path,
        {
            name: {"images": split.images, "labels": split.labels.astype(np.uint8)}
            for name, split in splits.items()
        },
    )


def read_split(path: Path, name: str) -> LabelledImages:
    """Read one split of a file that ``write_splits`` made; see ``read_archive``."""

    def build(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> LabelledImages:
        return LabelledImages(images, labels.astype(np.int64))

    return read_archive(path, name, ("images", "labels"), build)
