"""Training batches of pictures with random shifts, flips and erased squares."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from edgedl.models.data.images import LabelledImages
from edgedl.models.reference.plan import TrainingPlan


@dataclass(frozen=True)
class Augmentation:
    """Random changes of pictures that leave their labels true.

    Every picture is shifted by up to ``shift`` pixels in each direction (the border is mirrored)
    and, if ``flip``, mirrored left to right half of the time. A square of ``cutout`` pixels around
    a random pixel becomes mid-grey; what of it lies outside the picture is lost.

    Source: He et al., "Deep residual learning", 2016, section 4.2 (there: shift 4, zero border);
    DeVries, Taylor, "Improved regularization with cutout", 2017, section 3.2 (there: zeros, in
    pictures of mean zero).
    """

    shift: int = 0
    flip: bool = False
    cutout: int = 0

    @classmethod
    def of(cls, plan: TrainingPlan) -> "Augmentation":
        """Return what a reference model's plan says."""
        return cls(plan.shift, plan.flip, plan.cutout)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return changed float32 pictures [B, C, H, W]."""
        count, channels, height, width = x.shape
        s = self.shift
        if s:
            padded = F.pad(x, (s, s, s, s), mode="reflect")
            top, left = torch.randint(0, 2 * s + 1, (2, count, 1), generator=generator)
            rows = (top + torch.arange(height)).view(count, 1, height, 1)
            columns = (left + torch.arange(width)).view(count, 1, 1, width)
            batch = torch.arange(count).view(count, 1, 1, 1)
            channel = torch.arange(channels).view(1, channels, 1, 1)
            x = padded[batch, channel, rows, columns]
        if self.flip:
            mirrored = torch.rand(count, generator=generator) < 0.5
            x = torch.where(mirrored.view(count, 1, 1, 1), x.flip(3), x)
        if self.cutout:
            inside = [
                self._near(torch.randint(0, size, (count, 1), generator=generator), size)
                for size in (height, width)
            ]
            erased = inside[0].view(count, 1, height, 1) & inside[1].view(count, 1, 1, width)
            x = x.masked_fill(erased, 0.5)
        return x

    def _near(self, center: Tensor, size: int) -> Tensor:
        """Say which of ``size`` positions lie in the square around ``center`` [B, 1]: [B, size]."""
        start = center - self.cutout // 2
        position = torch.arange(size)
        return (start <= position) & (position < start + self.cutout)


class ImageBatches:
    """Shuffled batches of float32 pictures [B, C, H, W] in 0..1 with int64 labels [B]."""

    def __init__(self, split: LabelledImages, batch_size: int, augment: Augmentation) -> None:
        """Keep the split as uint8 [N, C, H, W]; an epoch drops its last incomplete batch."""
        self._images = torch.from_numpy(split.images.transpose(0, 3, 1, 2).copy())
        self._labels = torch.from_numpy(split.labels)
        self._batch_size, self._augment = batch_size, augment

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self._labels) // self._batch_size

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one epoch of (inputs, labels) in an order drawn from ``generator``."""
        order = torch.randperm(len(self._labels), generator=generator)
        for step in range(len(self)):
            picked = order[step * self._batch_size : (step + 1) * self._batch_size]
            yield self._augment(self._images[picked].float() / 255, generator), self._labels[picked]
