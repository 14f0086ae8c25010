"""Training batches cut from sensor recordings at random places, slightly turned."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from edgedl.models.data.recordings import Recordings
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.preprocess.sequence import SequencePreprocessing

SCALE_DEVIATION = 0.1


class RecordingBatches:
    """Batches of random windows float32 [B, T, C] with int64 labels [B].

    A watch never sits the same way twice: every window is turned by a random small rotation (the
    same for all sensors; channels come in triples x, y, z) and scaled.

    Source: Um et al., "Data augmentation of wearable sensor data for Parkinson's disease
    monitoring using convolutional neural networks", 2017, section 4 (rotation, scaling, cropping).
    """

    def __init__(
        self, split: Recordings, cut: SequencePreprocessing, batch_size: int, rotation: float
    ) -> None:
        """Keep the recordings; ``rotation`` is the deviation of the rotation vector in radians.

        Raises:
            BadInputError: a rotation is asked for, but the channels do not come in triples; the
                recordings have other channels, or all are shorter than a window.
        """
        split.check_channels(cut)
        if int(split.lengths.max()) < cut.window:
            raise BadInputError(
                f"the longest recording has {split.lengths.max()} rows, a window has {cut.window}"
            )
        if rotation and len(cut.columns) % 3:
            raise BadInputError(f"{len(cut.columns)} channels cannot be turned: no triples x, y, z")
        self._values = torch.from_numpy(split.values)
        self._labels = torch.from_numpy(split.labels)
        lengths = split.lengths
        begins = np.cumsum(lengths) - lengths
        # Every row that a window may start at, and the recording it belongs to.
        self._starts = torch.from_numpy(
            np.concatenate(
                [np.arange(b, b + n - cut.window + 1) for b, n in zip(begins, lengths, strict=True)]
            )
        )
        counts = torch.from_numpy(np.maximum(lengths - cut.window + 1, 0))
        self._owner = torch.repeat_interleave(torch.arange(len(lengths)), counts)
        self._window, self._batch_size, self._rotation = cut.window, batch_size, rotation
        self._batches = max(1, len(self._starts) // cut.hop // batch_size)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self._batches

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one epoch of (inputs, labels) drawn from ``generator``."""
        for _ in range(len(self)):
            picked = torch.randint(len(self._starts), (self._batch_size,), generator=generator)
            rows = self._starts[picked].unsqueeze(1) + torch.arange(self._window)
            inputs = self._values[rows]
            if self._rotation:
                inputs = self._turn(inputs, generator)
            yield inputs, self._labels[self._owner[picked]]

    def _turn(self, x: Tensor, generator: torch.Generator) -> Tensor:
        count, window, channels = x.shape
        a, b, c = (self._rotation * torch.randn(3, count, generator=generator)).unbind()
        zero = torch.zeros(count)
        # exp of the skew matrix of a rotation vector is the rotation (Rodrigues).
        skew = torch.stack([zero, -c, b, c, zero, -a, -b, a, zero], 1).view(count, 3, 3)
        rotation = torch.linalg.matrix_exp(skew)
        triples = x.view(count, window, channels // 3, 3)
        turned = torch.einsum("ntkx,nxy->ntky", triples, rotation).reshape(x.shape)
        scale = 1 + SCALE_DEVIATION * torch.randn(count, 1, 1, generator=generator)
        return turned * scale
