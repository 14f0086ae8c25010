"""Training batches of pictures with random shifts and flips."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from edgedl.models.data.images import LabelledImages


class ImageBatches:
    """Shuffled batches of float32 pictures [B, C, H, W] in 0..1 with int64 labels [B].

    Every picture is shifted by up to ``shift`` pixels in each direction (the border is mirrored)
    and, if ``flip``, mirrored left to right half of the time.

    Source: He et al., "Deep residual learning", 2016, section 4.2 (there: shift 4, zero border).
    """

    def __init__(self, split: LabelledImages, batch_size: int, shift: int, flip: bool) -> None:
        """Keep the split as uint8 [N, C, H, W]; an epoch drops its last incomplete batch."""
        self._images = torch.from_numpy(split.images.transpose(0, 3, 1, 2).copy())
        self._labels = torch.from_numpy(split.labels)
        self._batch_size, self._shift, self._flip = batch_size, shift, flip

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self._labels) // self._batch_size

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one epoch of (inputs, labels) in an order drawn from ``generator``."""
        order = torch.randperm(len(self._labels), generator=generator)
        for step in range(len(self)):
            picked = order[step * self._batch_size : (step + 1) * self._batch_size]
            yield self._augment(self._images[picked].float() / 255, generator), self._labels[picked]

    def _augment(self, x: Tensor, generator: torch.Generator) -> Tensor:
        count, channels, height, width = x.shape
        s = self._shift
        if s:
            padded = F.pad(x, (s, s, s, s), mode="reflect")
            top, left = torch.randint(0, 2 * s + 1, (2, count, 1), generator=generator)
            rows = (top + torch.arange(height)).view(count, 1, height, 1)
            columns = (left + torch.arange(width)).view(count, 1, 1, width)
            batch = torch.arange(count).view(count, 1, 1, 1)
            channel = torch.arange(channels).view(1, channels, 1, 1)
            x = padded[batch, channel, rows, columns]
        if self._flip:
            mirrored = torch.rand(count, generator=generator) < 0.5
            x = torch.where(mirrored.view(count, 1, 1, 1), x.flip(3), x)
        return x.contiguous(memory_format=torch.channels_last)
