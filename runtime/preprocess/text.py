"""Text as data: the tokenizer, and the network's inputs that its tokens become."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import msgspec
import numpy as np

from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.install import install_line
from edgedl.runtime.preprocess.reading import Array, Reading, read_text
from edgedl.runtime.wording import reason

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

# Longest text file in bytes.
LONGEST = 100_000_000


class TextPreprocessing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="text"):
    """Turns lines of text into tokens, int64 [N, length].

    Attributes:
        tokenizer: in the format of Hugging Face's ``tokenizers``: what ``tokenizer.json`` holds.
        length: of an input in tokens; longer lines are cut, shorter ones filled up.
        pad: token that fills up.
        inputs: what each of the network's inputs takes: "ids"; "mask", 1 for a token and 0 for what
            fills up; "types", the segment of a token.
    """

    tokenizer: str
    length: int
    pad: int = 0
    inputs: tuple[Literal["ids", "mask", "types"], ...] = ("ids",)

    takes: ClassVar[str] = "text files"
    suffixes: ClassVar[tuple[str, ...]] = (".txt",)

    def __post_init__(self) -> None:
        """Reject settings that cannot be applied; the tokenizer is read when it is needed."""
        if self.length < 1:
            raise BadInputError(f"length must be at least 1, got {self.length}")
        if not self.inputs:
            raise BadInputError("a network of text takes at least 'ids'")

    def __call__(self, lines: "list[str]") -> tuple[Array, ...]:
        """Map lines to inputs, int64 [N, length] each.

        Raises:
            BackendUnavailableError: tokenizers is not installed.
            BadInputError: the tokenizer cannot be read.
        """
        encoded = _tokenizer(self.tokenizer, self.length).encode_batch(lines)
        columns = [self._column(line) for line in encoded]
        arrays = {
            name: np.stack([getattr(column, name) for column in columns]) for name in self.inputs
        }
        return tuple(arrays[name] for name in self.inputs)

    def inputs_of(self, path: Path) -> Reading:
        """Read the lines of a text file that are not empty.

        Raises:
            BackendUnavailableError: tokenizers is not installed.
            BadInputError: it is no text in UTF-8, or has no line.
        """
        text = read_text(path, LONGEST)
        numbered = [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
        if not numbered:
            raise BadInputError(f"{path} holds no line of text")
        parts = tuple(f"line {number}" for number, _ in numbered)
        return Reading(self([line for _, line in numbered]), parts if len(parts) > 1 else ())

    def from_raw(self, x: Array) -> Array:
        """Return tokens as they are."""
        return x

    def _column(self, line: "Encoding") -> "_Tokens":
        found = _Tokens(*(np.full(self.length, fill, np.int64) for fill in (self.pad, 0, 0)))
        count = min(len(line.ids), self.length)
        found.ids[:count] = line.ids[:count]
        found.mask[:count] = 1
        found.types[:count] = line.type_ids[:count]
        return found


class _Tokens(NamedTuple):
    ids: Array
    mask: Array
    types: Array


@lru_cache(maxsize=4)
def _tokenizer(content: str, length: int) -> "Tokenizer":
    """Return a tokenizer that cuts lines, and keeps the marks at their ends."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        missing = f"tokenizers is missing, it splits text: {install_line('text')}"
        raise BackendUnavailableError.of(error, missing) from error
    try:
        found = Tokenizer.from_str(content)
    except Exception as error:
        # The library raises Exception itself.
        raise BadInputError(f"the tokenizer cannot be read ({reason(error)})") from error
    found.no_padding()
    found.enable_truncation(length)
    return found
