"""Steps over series [N, T, C]."""

import math
import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from benchmarks.sweep.pictures import ACTIVATIONS, Apply, Residual
from benchmarks.sweep.step import Step


class Attention(nn.Module):
    """Self-attention of two heads, written out."""

    def __init__(self, width: int) -> None:
        """Make the projections."""
        super().__init__()
        self.inner = 4 * math.ceil(width / 4)
        self.qkv, self.out = nn.Linear(width, 3 * self.inner), nn.Linear(self.inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, C]."""
        n, steps, _ = x.shape
        q, k, v = (
            part.reshape(n, steps, 2, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, -1)
        )
        scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        y: Tensor = self.out((scores @ v).transpose(1, 2).reshape(n, steps, -1))
        return y


class Recurrent(nn.Module):
    """A recurrent layer whose states are dropped."""

    def __init__(self, layer: nn.Module) -> None:
        """Take the layer."""
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, H]."""
        y: Tensor = self.layer(x)[0]
        return y


class Convolution(nn.Module):
    """A convolution along time."""

    def __init__(self, width: int, out: int, size: int) -> None:
        """Make the layer."""
        super().__init__()
        self.layer = nn.Conv1d(width, out, size, padding=size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, out]."""
        y: Tensor = self.layer(x.transpose(1, 2)).relu().transpose(1, 2)
        return y


class OverSteps(nn.Module):
    """A convolution whose channels are the steps."""

    def __init__(self, steps: int) -> None:
        """Make the layer."""
        super().__init__()
        self.layer = nn.Conv1d(steps, steps, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, C]."""
        y: Tensor = self.layer(x)
        return y


class Stored(nn.Module):
    """A product with a stored matrix [in, out], as some libraries write a linear layer."""

    def __init__(self, width: int, out: int) -> None:
        """Make the matrix."""
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(width, out) / math.sqrt(width))
        self.bias = nn.Parameter(torch.randn(out) / 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return x @ W + b."""
        y: Tensor = x @ self.matrix + self.bias
        return y


def _recurrent(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    kind = rng.choice((nn.LSTM, nn.GRU, nn.RNN))
    both = rng.random() < 0.4
    return Recurrent(kind(shape[2], 6, batch_first=True, bidirectional=both))


STEPS: tuple[Step, ...] = (
    (
        "linear",
        "series",
        lambda rng, shape: nn.Sequential(
            nn.Linear(shape[2], rng.choice((8, 12))), rng.choice(ACTIVATIONS)()
        ),
    ),
    ("stored", "series", lambda rng, shape: Stored(shape[2], rng.choice((8, 12)))),
    ("layer_norm", "series", lambda rng, shape: nn.LayerNorm(shape[2])),
    ("attention", "series", lambda rng, shape: Residual(Attention(shape[2]))),
    ("conv1d", "series", lambda rng, shape: Convolution(shape[2], rng.choice((6, 8)), 3)),
    ("over_steps", "series", lambda rng, shape: OverSteps(shape[1])),
    ("recurrent", "series", _recurrent),
    ("last", "vector", lambda rng, shape: Apply(lambda x: x[:, -1])),
    ("mean", "vector", lambda rng, shape: Apply(lambda x: x.mean(1))),
    ("flatten", "vector", lambda rng, shape: Apply(lambda x: x.flatten(1))),
)
