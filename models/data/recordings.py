"""Labelled sensor recordings of different lengths."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgedl.models.data.archive import read_archive, write_archive
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.preprocess.sequence import SequencePreprocessing


@dataclass(frozen=True)
class Recordings:
    """One split of a sequence data set.

    Attributes:
        values: float32 [sum of lengths, C], the recordings one after another.
        lengths: int64 [R], rows of each recording.
        labels: int64 [R], class indices.
        subjects: int64 [R], who was recorded.
    """

    values: npt.NDArray[np.float32]
    lengths: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    subjects: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        """Check shapes and types, so that a broken file is named where it enters."""
        if self.values.ndim != 2 or self.values.dtype != np.float32:
            raise BadInputError(
                f"values must be float32 [N, C], got {self.values.dtype} {self.values.shape}"
            )
        if not np.isfinite(self.values).all():
            raise BadInputError("values must be finite numbers")
        for name in ("lengths", "labels", "subjects"):
            found = getattr(self, name)
            if found.ndim != 1 or found.dtype != np.int64 or len(found) != len(self.lengths):
                raise BadInputError(
                    f"{name} must be int64, one of each recording, got {found.dtype} {found.shape}"
                )
        if len(self.lengths) == 0 or (self.lengths < 1).any():
            raise BadInputError("there must be recordings, all with lengths of at least 1 row")
        if self.lengths.sum() != len(self.values):
            raise BadInputError(
                f"the lengths sum to {self.lengths.sum()}, there are {len(self.values)} rows"
            )

    def __len__(self) -> int:
        """Return the number of recordings."""
        return len(self.lengths)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of recordings, and of channels."""
        return (len(self), self.values.shape[1])

    def recordings(self) -> list[npt.NDArray[np.float32]]:
        """Return every recording, float32 [T, C]."""
        return np.split(self.values, np.cumsum(self.lengths)[:-1])

    def windows(
        self, cut: SequencePreprocessing
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Cut every recording into windows -> float32 [N, T, C] and labels [N].

        Raises:
            BadInputError: a recording is shorter than a window, or has other channels.
        """
        self.check_channels(cut)
        if int(self.lengths.min()) < cut.window:
            raise BadInputError(
                f"a recording has {self.lengths.min()} rows, a window has {cut.window}"
            )
        parts = [cut.windows(recording) for recording in self.recordings()]
        labels = np.repeat(self.labels, [len(part) for part in parts])
        return np.concatenate(parts), labels

    def check_channels(self, cut: SequencePreprocessing) -> None:
        """Refuse windows of other channels than were recorded.

        Raises:
            BadInputError: their numbers differ.
        """
        if self.values.shape[1] != len(cut.columns):
            raise BadInputError(
                f"the recordings have {self.values.shape[1]} channels, a window has "
                f"{len(cut.columns)}: {', '.join(cut.columns)}"
            )

    def of_subjects(self, subjects: frozenset[int]) -> "Recordings":
        """Return the recordings of some subjects, in order.

        Raises:
            BadInputError: there are none of them.
        """
        kept = [i for i, subject in enumerate(self.subjects) if int(subject) in subjects]
        if not kept:
            raise BadInputError(f"there is no recording of the subjects {sorted(subjects)}")
        all_recordings = self.recordings()
        return Recordings(
            np.concatenate([all_recordings[i] for i in kept]),
            self.lengths[kept],
            self.labels[kept],
            self.subjects[kept],
        )

    def digest(self) -> str:
        """Return the sha256 of values, lengths, labels and subjects."""
        h = hashlib.sha256(np.ascontiguousarray(self.values).tobytes())
        for part in (self.lengths, self.labels, self.subjects):
            h.update(np.ascontiguousarray(part, dtype=np.int64).tobytes())
        return h.hexdigest()


_FIELDS = ("values", "lengths", "labels", "subjects")


def write_recordings(path: Path, splits: dict[str, Recordings]) -> None:
    """Write splits to one file; see ``write_archive``."""
    write_archive(
        path, {name: {f: getattr(split, f) for f in _FIELDS} for name, split in splits.items()}
    )


def read_recordings(path: Path, name: str) -> Recordings:
    """Read one split of a file that ``write_recordings`` made; see ``read_archive``."""
    return read_archive(path, name, _FIELDS, Recordings)
