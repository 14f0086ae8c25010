"""Labelled texts, and the words that a tokenizer knows of them."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgedl.models.data.archive import read_archive, write_archive
from edgedl.runtime.errors import BadInputError

# The first tokens of every vocabulary, in this order: what fills up, any other word, a hidden word.
SPECIAL = PADDING, UNKNOWN, HIDDEN = "[PAD]", "[UNK]", "[MASK]"


@dataclass(frozen=True)
class LabelledTexts:
    """One split of a text data set.

    Attributes:
        texts: each without a line break.
        labels: int64 [N], class indices.
    """

    texts: tuple[str, ...]
    labels: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        """Check the parts, so that a broken file is named where it enters."""
        if self.labels.dtype != np.int64 or self.labels.shape != (len(self.texts),):
            raise BadInputError(
                f"{len(self.texts)} texts but labels {self.labels.dtype} "
                f"{list(self.labels.shape)}: one int64 per text"
            )
        broken = next((i for i, text in enumerate(self.texts) if "\n" in text), None)
        if broken is not None:
            raise BadInputError(f"text {broken} has a line break")

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.texts)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of texts."""
        return (len(self),)

    def digest(self) -> str:
        """Return the sha256 of the texts, a line each, and of the labels."""
        h = hashlib.sha256(self.joined())
        h.update(np.ascontiguousarray(self.labels).tobytes())
        return h.hexdigest()

    def joined(self) -> bytes:
        """Return the texts in UTF-8, a line each."""
        return "".join(f"{text}\n" for text in self.texts).encode()


def write_texts(path: Path, splits: dict[str, LabelledTexts]) -> None:
    """Write splits to one file; see ``write_archive``."""
    write_archive(
        path,
        {
            name: {"texts": np.frombuffer(split.joined(), np.uint8), "labels": split.labels}
            for name, split in splits.items()
        },
    )


def read_texts(path: Path, name: str) -> LabelledTexts:
    """Read one split of a file that ``write_texts`` made; see ``read_archive``."""

    def build(texts: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> LabelledTexts:
        return LabelledTexts(tuple(texts.tobytes().decode().split("\n")[:-1]), labels)

    return read_archive(path, name, ("texts", "labels"), build)


def frequent_words(texts: Iterable[str], count: int) -> list[str]:
    """Return the most frequent words of texts, the most frequent first; ties by the alphabet.

    >>> frequent_words(["to be or not to be", "or to"], 3)
    ['to', 'be', 'or']
    """
    found = Counter(word for text in texts for word in text.split())
    return sorted(found, key=lambda word: (-found[word], word))[:count]


def word_tokenizer(words: Sequence[str]) -> str:
    """Return a tokenizer of lower-case words in the format of Hugging Face's ``tokenizers``.

    Whatever is no letter of the Latin alphabet parts words. Tokens are those of ``SPECIAL``, then
    the words in their order.
    """
    numbers = {token: i for i, token in enumerate((*SPECIAL, *words))}
    marks = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {"id": i, "content": token, **marks, "special": True}
                for i, token in enumerate(SPECIAL)
            ],
            "normalizer": {
                "type": "Sequence",
                "normalizers": [
                    {"type": "Lowercase"},
                    {"type": "Replace", "pattern": {"Regex": "[^a-z]+"}, "content": " "},
                ],
            },
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "post_processor": None,
            "decoder": None,
            "model": {"type": "WordLevel", "vocab": numbers, "unk_token": UNKNOWN},
        }
    )
