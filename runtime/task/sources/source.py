"""Data that were found by name: batches of each split, and what is known of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from edgedl.runtime.preprocess.preprocessing import Preprocessing
from edgedl.runtime.task.kept_splits import Array

# Samples that are read at a time.
TOGETHER = 64


class SourceBatch(NamedTuple):
    """Inputs, each [B, ...], and labels [B, ...]; None where nobody knows them."""

    inputs: tuple[Array, ...]
    labels: Array | None


class Split(Protocol):
    """Samples in an order that stays, read as often as wanted."""

    def __len__(self) -> int:
        """Return the number of batches."""
        ...

    def __iter__(self) -> Iterator[SourceBatch]:
        """Yield batches of at most 64 samples."""
        ...


@dataclass(frozen=True)
class Source:
    """A user's data.

    Attributes:
        name: of the file or folder.
        splits: "calibration" and "test"; "train" and "selection" where there are any.
        classes: their names in label order, if labels are classes.
        preprocessing: how a file becomes an input; None where inputs are arrays.
        notes: what was assumed, for the user.
    """

    name: str
    splits: Mapping[str, Split]
    classes: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    notes: tuple[str, ...] = ()


class ArraySplit:
    """Samples in memory."""

    def __init__(self, inputs: Sequence[Array], labels: Array | None) -> None:
        """Take inputs [N, ...] and labels [N, ...]."""
        self._inputs, self._labels = tuple(inputs), labels

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self._inputs[0]) // TOGETHER)

    def __iter__(self) -> Iterator[SourceBatch]:
        """Yield batches of at most 64 samples."""
        for start in range(0, len(self._inputs[0]), TOGETHER):
            part = slice(start, start + TOGETHER)
            labels = None if self._labels is None else self._labels[part]
            yield SourceBatch(tuple(x[part] for x in self._inputs), labels)

    @classmethod
    def rows(cls, inputs: Sequence[Array], labels: Array | None, chosen: Array) -> "ArraySplit":
        """Return some rows of arrays."""
        rows = np.asarray(chosen)
        return cls([x[rows] for x in inputs], None if labels is None else labels[rows])
