"""Text as data, a character at a time: what language models of characters take and give."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import msgspec
import numpy as np

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.preprocess.reading import Array, Reading, read_text

# Longest prompt in a file, in bytes.
LONGEST = 1_000_000


class CharacterPreprocessing(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="characters", dict=True
):
    """Turns text into numbers of characters, int64 [1, T], and back.

    Attributes:
        alphabet: the characters in the order of their numbers; the first stands for all that the
            network does not know.
        context: most characters that it sees at once.
    """

    alphabet: str
    context: int

    takes: ClassVar[str] = "text files"
    suffixes: ClassVar[tuple[str, ...]] = (".txt",)

    def __post_init__(self) -> None:
        """Reject settings that cannot be applied."""
        if len(set(self.alphabet)) != len(self.alphabet) or len(self.alphabet) < 2:
            raise BadInputError("an alphabet has at least 2 characters, each once")
        if self.context < 1:
            raise BadInputError(f"context must be at least 1, got {self.context}")

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Return the number of each character but the first, which stands for the unknown."""
        return {character: i for i, character in enumerate(self.alphabet) if i}

    def encode(self, text: str) -> Array:
        """Return the numbers of a text, int64 [1, T].

        Raises:
            BadInputError: it is empty, longer than the context, or has a character that the network
                does not know; the message names it and its place.
        """
        if not text:
            raise BadInputError("the text is empty: it must have at least one character")
        if len(text) > self.context:
            raise BadInputError(
                f"the text has {len(text)} characters, the network sees {self.context}: give its "
                "end alone"
            )
        for place, character in enumerate(text, 1):
            if character not in self.numbers:
                raise BadInputError(
                    f"character {place} of the text is {character!r}, which the network does not "
                    f"know; it knows {self.alphabet[1:]!r}"
                )
        return np.asarray([[self.numbers[character] for character in text]], np.int64)

    def decode(self, numbers: Sequence[int]) -> str:
        """Return the text of some numbers."""
        return "".join(self.alphabet[number] for number in numbers)

    def read(self, path: Path) -> str:
        """Return the text of a file, without the line break at its end.

        Raises:
            BadInputError: it is no text in UTF-8.
        """
        return read_text(path, LONGEST).removesuffix("\n")

    def inputs_of(self, path: Path) -> Reading:
        """Return the numbers of a file's characters.

        Raises:
            BadInputError: it is no text in UTF-8, or ``encode`` refuses it.
        """
        return Reading((self.encode(self.read(path)),), ())

    def from_raw(self, x: Array) -> Array:
        """Return numbers of characters as they are."""
        return x
