"""Training batches of texts with hidden words: to learn classes, or the words themselves."""

from collections.abc import Iterator

import torch
from torch import Tensor

from edgedl.models.data.dataset import TextDataset
from edgedl.models.data.datasets import load_texts
from edgedl.models.data.texts import HIDDEN, PADDING, SPECIAL, UNKNOWN
from edgedl.models.reference.tasks import preprocessing_of

# Devlin et al. 2019, section 3.1: what is told, and what stands in its place.
TOLD = 0.15
REPLACED_BY_MARK, REPLACED_BY_ANY = 0.8, 0.1
# What cross-entropy leaves out.
NOT_TOLD = -100

_PADDING, _UNKNOWN, _HIDDEN = (SPECIAL.index(token) for token in (PADDING, UNKNOWN, HIDDEN))


class TextBatches:
    """Shuffled batches of texts with labels; a share of the words is hidden.

    Source: Iyyer et al., "Deep unordered composition rivals syntactic methods for text
    classification", 2015, section 2.3 (word dropout; here a word is marked as hidden).
    """

    def __init__(self, ids: Tensor, labels: Tensor, batch_size: int, hidden: float) -> None:
        """Keep tokens int64 [N, L] and labels int64 [N].

        An epoch drops its last incomplete batch. ``hidden`` is the share of hidden words.
        """
        self._ids, self._labels = ids, labels
        self._batch_size, self._hidden = batch_size, hidden

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self._ids) // self._batch_size

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """Yield one epoch of ((tokens, mask), labels) in an order drawn from ``generator``."""
        for picked in shuffled(len(self._ids), self._batch_size, generator):
            ids = self._ids[picked]
            mask = ids != _PADDING
            hidden = mask & (torch.rand(ids.shape, generator=generator) < self._hidden)
            yield (ids.masked_fill(hidden, _HIDDEN), mask.long()), self._labels[picked]


class MaskedBatches:
    """Shuffled batches of texts with hidden words and their places, to be told.

    Of a text's known words 15 % are told, at least one: 80 % of these are hidden, 10 % replaced by
    any word, 10 % stay.

    Source: Devlin et al. 2019, section 3.1, task 1.
    """

    def __init__(self, ids: Tensor, vocabulary: int, batch_size: int) -> None:
        """Keep tokens int64 [N, L] of a vocabulary; an epoch drops its last incomplete batch."""
        self._ids, self._vocabulary, self._batch_size = ids, vocabulary, batch_size
        self._places = max(1, round(TOLD * ids.shape[1]))

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self._ids) // self._batch_size

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """Yield one epoch of ((tokens, mask, places), words at the places).

        Places are int64 [B, M], and words ``NOT_TOLD`` where a text has fewer than M to tell.
        """
        for picked in shuffled(len(self._ids), self._batch_size, generator):
            ids = self._ids[picked]
            known = (ids != _PADDING) & (ids != _UNKNOWN)
            order = torch.rand(ids.shape, generator=generator).masked_fill(~known, -1.0)
            places = order.topk(self._places, 1).indices
            most = (TOLD * known.sum(1, keepdim=True)).round().clamp(min=1)
            told = (torch.arange(self._places) < most) & known.gather(1, places)
            words = ids.gather(1, places)
            shown = self._replace(words, generator).where(told, words)
            given = ids.scatter(1, places, shown)
            mask = (ids != _PADDING).long()
            yield (given, mask, places), words.masked_fill(~told, NOT_TOLD)

    def _replace(self, words: Tensor, generator: torch.Generator) -> Tensor:
        """Return what stands in the place of words that are told."""
        draw = torch.rand(words.shape, generator=generator)
        any_word = torch.randint(len(SPECIAL), self._vocabulary, words.shape, generator=generator)
        words = any_word.where(draw < REPLACED_BY_MARK + REPLACED_BY_ANY, words)
        return words.masked_fill(draw < REPLACED_BY_MARK, _HIDDEN)


def shuffled(count: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the numbers of whole batches of ``count`` samples in a drawn order."""
    order = torch.randperm(count, generator=generator)
    for step in range(count // batch_size):
        yield order[step * batch_size : (step + 1) * batch_size]


def training_tokens(dataset: TextDataset) -> tuple[Tensor, Tensor]:
    """Return the training texts of a data set as tokens int64 [N, L], and their labels [N]."""
    part = load_texts(dataset.name, "train")
    ids, _ = preprocessing_of(dataset)(list(part.texts))
    return torch.from_numpy(ids), torch.from_numpy(part.labels)
