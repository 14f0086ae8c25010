"""Training batches cut from running text at random places."""

from collections.abc import Iterator

import torch
from torch import Tensor

from edgedl.models.data.corpus import Corpus
from edgedl.runtime.errors import BadInputError

# An epoch is that many characters: texts are long, and a checkpoint follows each epoch.
EPOCH_CHARACTERS = 1_000_000


class CorpusBatches:
    """Batches of random windows int64 [B, T], and the characters that follow each, int64 [B, T]."""

    def __init__(self, split: Corpus, context: int, batch_size: int) -> None:
        """Keep the texts; a window may reach from one into the next.

        Raises:
            BadInputError: all of them together are shorter than a window.
        """
        if len(split.characters) <= context:
            raise BadInputError(
                f"the texts have {len(split.characters)} characters, a window has {context}"
            )
        self._characters = torch.from_numpy(split.characters)
        self._context, self._batch_size = context, batch_size

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return max(1, EPOCH_CHARACTERS // self._context // self._batch_size)

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one epoch of (inputs, labels) drawn from ``generator``."""
        last = len(self._characters) - self._context
        for _ in range(len(self)):
            starts = torch.randint(last, (self._batch_size, 1), generator=generator)
            found = self._characters[starts + torch.arange(self._context + 1)].long()
            yield found[:, :-1], found[:, 1:]
