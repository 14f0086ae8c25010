"""Running text as numbers of characters, and the windows that a language model learns and shows."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgedl.models.data.archive import read_archive, write_archive
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.scores import NO_LABEL

Ids = npt.NDArray[np.int64]

# Stands for every character that the alphabet has not.
UNKNOWN = "\ufffd"


@dataclass(frozen=True)
class Corpus:
    """One split of a text data set.

    Attributes:
        characters: uint8 [sum of lengths], numbers of characters, the texts one after another.
        lengths: int64 [R], characters of each text.
    """

    characters: npt.NDArray[np.uint8]
    lengths: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        """Check shapes and types, so that a broken file is named where it enters."""
        if self.characters.ndim != 1 or self.characters.dtype != np.uint8:
            found = f"{self.characters.dtype} {self.characters.shape}"
            raise BadInputError(f"characters must be uint8 [N], got {found}")
        if self.lengths.ndim != 1 or self.lengths.dtype != np.int64 or (self.lengths < 1).any():
            raise BadInputError("lengths must be int64 [R], each at least 1")
        if self.lengths.sum() != len(self.characters):
            raise BadInputError(
                f"the lengths sum to {self.lengths.sum()}, there are {len(self.characters)} "
                "characters"
            )

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.lengths)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of texts."""
        return (len(self),)

    @classmethod
    def of(cls, texts: list[str], alphabet: str) -> "Corpus":
        """Return texts as numbers of an alphabet whose first character stands for the unknown.

        >>> Corpus.of(["ab", "c"], UNKNOWN + "ab").characters.tolist()
        [1, 2, 0]
        """
        number = {character: i for i, character in enumerate(alphabet)}
        ids = [number.get(character, 0) for text in texts for character in text]
        lengths = np.asarray([len(text) for text in texts], np.int64)
        return cls(np.asarray(ids, np.uint8), lengths)

    def windows(self, context: int, scored: int) -> tuple[Ids, Ids]:
        """Cut every text into windows, so that each character is a label once.

        A window is ``context`` characters; the labels are those that follow each of them. Of the
        labels the last ``scored`` count, those before are ``NO_LABEL``: every prediction that
        counts has seen at least ``context - scored`` characters. The first characters of a text
        are no labels, and neither is what is left at its end.

        Returns:
            Characters int64 [N, context] and labels int64 [N, context].

        Raises:
            BadInputError: every text is too short for a window.
        """
        inputs, labels = [], []
        for text in np.split(self.characters.astype(np.int64), np.cumsum(self.lengths)[:-1]):
            for start in range(0, len(text) - context, scored):
                inputs.append(text[start : start + context])
                labels.append(text[start + 1 : start + context + 1])
        if not inputs:
            raise BadInputError(f"no text is longer than a window of {context} characters")
        wanted = np.stack(labels)
        wanted[:, : context - scored] = NO_LABEL
        return np.stack(inputs), wanted

    def digest(self) -> str:
        """Return the sha256 of characters and lengths."""
        h = hashlib.sha256(np.ascontiguousarray(self.characters).tobytes())
        h.update(np.ascontiguousarray(self.lengths, dtype=np.int64).tobytes())
        return h.hexdigest()


_FIELDS = ("characters", "lengths")


def write_corpora(path: Path, splits: dict[str, Corpus]) -> None:
    """Write splits to one file; see ``write_archive``."""
    write_archive(
        path, {name: {f: getattr(split, f) for f in _FIELDS} for name, split in splits.items()}
    )


def read_corpus(path: Path, name: str) -> Corpus:
    """Read one split of a file that ``write_corpora`` made; see ``read_archive``."""
    return read_archive(path, name, _FIELDS, Corpus)
