"""Steps over pictures [N, C, H, W]."""

import random
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.sweep.step import Step

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.GELU, nn.LeakyReLU, nn.ELU, nn.Tanh)


class Apply(nn.Module):
    """A function without weights."""

    def __init__(self, function: "object") -> None:
        """Take it."""
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Return its value."""
        y: Tensor = self.function(x)  # type: ignore[operator]
        return y


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, inner: nn.Module) -> None:
        """Take f."""
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum."""
        y: Tensor = x + self.inner(x)
        return y


class Branches(nn.Module):
    """What several branches give, side by side, each times a number of its own."""

    def __init__(self, branches: Sequence[nn.Module], factors: Sequence[float], axis: int) -> None:
        """Take the branches."""
        super().__init__()
        self.branches, self.factors, self.axis = nn.ModuleList(branches), factors, axis

    def forward(self, x: Tensor) -> Tensor:
        """Return the concat."""
        found = [b(x) * f for b, f in zip(self.branches, self.factors, strict=True)]
        y: Tensor = torch.cat(found, self.axis)
        return y


class SqueezeExcite(nn.Module):
    """Channels times a gate of their means."""

    def __init__(self, channels: int) -> None:
        """Make the two layers of the gate."""
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the product."""
        gate = self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        y: Tensor = x * gate
        return y


class ChannelAttention(nn.Module):
    """Channels times a convolution that slides over their means (ECA)."""

    def __init__(self) -> None:
        """Make the convolution."""
        super().__init__()
        self.slide = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the product."""
        pooled = x.mean((2, 3)).unsqueeze(1)
        y: Tensor = x * self.slide(pooled).sigmoid().squeeze(1)[:, :, None, None]
        return y


class SplitInParts(nn.Module):
    """One half of the channels goes through a layer, the other stays."""

    def __init__(self, channels: int) -> None:
        """Make the layer."""
        super().__init__()
        self.width = channels // 2
        self.layer = nn.Conv2d(self.width, self.width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return both, side by side."""
        a, b = x.split([self.width, x.shape[1] - self.width], 1)
        y: Tensor = torch.cat([self.layer(a).relu(), b], 1)
        return y


def _convolution(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    size, stride = rng.choice((1, 3, 3, 5)), rng.choice((1, 1, 2))
    out = rng.choice((6, 8, 12))
    layers: list[nn.Module] = [
        nn.Conv2d(shape[1], out, size, stride, size // 2, bias=rng.random() < 0.7)
    ]
    if rng.random() < 0.6:
        layers.append(nn.BatchNorm2d(out))
    if rng.random() < 0.8:
        layers.append(rng.choice(ACTIVATIONS)())
    return nn.Sequential(*layers)


def _depthwise(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    channels = shape[1]
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
        nn.BatchNorm2d(channels),
        rng.choice(ACTIVATIONS)(),
    )


def _residual(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    channels = shape[1]
    return Residual(
        nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), rng.choice(ACTIVATIONS)())
    )


def _concat(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    branches = [
        nn.Conv2d(shape[1], rng.choice((2, 4)), rng.choice((1, 3)), padding="same")
        for _ in range(rng.randint(2, 3))
    ]
    return Branches(branches, [rng.choice((1.0, 1.0, 5.0)) for _ in branches], 1)


def _pool(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    if min(shape[2:]) < 4:
        return nn.Identity()
    return rng.choice(
        (
            nn.MaxPool2d(2),
            nn.MaxPool2d(3, 2, 1),
            nn.AvgPool2d(2),
            nn.AvgPool2d(3, 2, ceil_mode=True),
            nn.AdaptiveAvgPool2d(4),
            nn.AdaptiveMaxPool2d(3),
        )
    )


def _upsample(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    if max(shape[2:]) > 12:
        return nn.Identity()
    mode = rng.choice(("nearest", "bilinear", "bicubic", "transposed"))
    if mode == "transposed":
        return nn.ConvTranspose2d(shape[1], 6, 2, 2)
    return nn.Upsample(scale_factor=2, mode=mode)


def _padding(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    sides = rng.choice(((0, 1, 0, 1), (1, 1, 1, 1), (2, 0, 0, 1)))
    return nn.Sequential(
        Apply(lambda x: F.pad(x, sides)), nn.Conv2d(shape[1], 8, 3, rng.choice((1, 2)))
    )


def _tokens(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    return Apply(lambda x: x.flatten(2).transpose(1, 2))


def _vector(rng: random.Random, shape: Sequence[int]) -> nn.Module:
    return rng.choice((Apply(lambda x: x.mean((2, 3))), Apply(lambda x: x.amax((2, 3)))))


STEPS: tuple[Step, ...] = (
    ("conv", "picture", _convolution),
    ("conv", "picture", _convolution),
    ("depthwise", "picture", _depthwise),
    ("residual", "picture", _residual),
    ("concat", "picture", _concat),
    ("pool", "picture", _pool),
    ("upsample", "picture", _upsample),
    ("padding", "picture", _padding),
    ("squeeze", "picture", lambda rng, shape: SqueezeExcite(shape[1])),
    ("eca", "picture", lambda rng, shape: ChannelAttention()),
    (
        "split",
        "picture",
        lambda rng, shape: SplitInParts(max(2, shape[1])) if shape[1] > 1 else nn.Identity(),
    ),
    ("prelu", "picture", lambda rng, shape: nn.PReLU(shape[1])),
    ("group_norm", "picture", lambda rng, shape: nn.GroupNorm(1, shape[1])),
    ("tokens", "series", _tokens),
    ("vector", "vector", _vector),
)
