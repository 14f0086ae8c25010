"""Layers of maps [N, C, H, W] for networks that are drawn at random.

Each is a function of (draw, a value) to a module and the kind of value behind it.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from small_networks import Net, trained
from torch import Tensor, nn

# (name, choices) to one of them.
Draw = Callable[[str, list[int]], int]


class Layer(NamedTuple):
    module: nn.Module
    kind: str


Make = Callable[[Draw, Tensor], Layer]


def _width(draw: Draw) -> int:
    return draw("width", [4, 6, 8, 12])


def _map(module: nn.Module) -> Layer:
    return Layer(module, "map")


def _convolution(draw: Draw, x: Tensor) -> Layer:
    layer = nn.Conv2d(x.shape[1], _width(draw), 3, draw("stride", [1, 1, 2]), 1)
    return _map(nn.Sequential(layer, [nn.ReLU, nn.SiLU, nn.Sigmoid][draw("act", [0, 1, 2])]()))


def _normed(draw: Draw, x: Tensor) -> Layer:
    width = _width(draw)
    norm = [
        lambda: trained(nn.BatchNorm2d(width)),
        lambda: nn.GroupNorm(2, width),
        lambda: trained(nn.InstanceNorm2d(width, affine=True, track_running_stats=True)),
    ][draw("norm", [0, 1, 2])]()
    return _map(nn.Sequential(nn.Conv2d(x.shape[1], width, 1, bias=False), norm, nn.ReLU()))


def _depthwise(draw: Draw, x: Tensor) -> Layer:
    channels = x.shape[1]
    times = draw("times", [1, 2])
    return _map(nn.Conv2d(channels, times * channels, 3, padding=1, groups=channels))


def _grouped(draw: Draw, x: Tensor) -> Layer:
    layers = nn.Conv2d(x.shape[1], 8, 1), nn.Conv2d(8, 12, 3, padding=1, groups=4)
    return _map(nn.Sequential(*layers, nn.PReLU(12, 0.1)))


def _residual(draw: Draw, x: Tensor) -> Layer:
    channels, inner = x.shape[1], _width(draw)
    return _map(
        Net(
            lambda m, y: (y + m.second(F.relu(m.first(y)))).relu(),
            first=nn.Conv2d(channels, inner, 3, padding=1),
            second=nn.Conv2d(inner, channels, 1),
        )
    )


def _concat(draw: Draw, x: Tensor) -> Layer:
    return _map(
        Net(
            lambda m, y: torch.cat([m.left(y), y, m.right(y).tanh()], 1),
            left=nn.Conv2d(x.shape[1], _width(draw), 1),
            right=nn.Conv2d(x.shape[1], 4, 3, padding=1),
        )
    )


def _split(draw: Draw, x: Tensor) -> Layer:
    def chunks(m: Net, y: Tensor) -> Tensor:
        a, b = m.wide(y).chunk(2, 1)
        return a * b.sigmoid()

    def uneven(m: Net, y: Tensor) -> Tensor:
        a, b = m.wide(y).split((5, 7), 1)
        return torch.cat([b, a], 1)

    def sliced(m: Net, y: Tensor) -> Tensor:
        y = m.wide(y)
        return y[:, 2:] + 0.5 * y[:, :-2]

    def gated(m: Net, y: Tensor) -> Tensor:
        return F.glu(m.wide(y), 1)

    ways = [chunks, uneven, sliced, gated]
    return _map(Net(ways[draw("split", [0, 1, 2, 3])], wide=nn.Conv2d(x.shape[1], 12, 1)))


def _excited(draw: Draw, x: Tensor) -> Layer:
    channels = x.shape[1]
    return _map(
        Net(
            lambda m, y: y * m.grow(m.shrink(y.mean((2, 3), keepdim=True)).relu()).sigmoid(),
            shrink=nn.Conv2d(channels, 4, 1),
            grow=nn.Conv2d(4, channels, 1),
        )
    )


def _efficient(draw: Draw, x: Tensor) -> Layer:
    """Attention by neighbours among the channels."""

    def forward(m: Net, y: Tensor) -> Tensor:
        scale = m.over(y.mean((2, 3)).unsqueeze(1)).sigmoid()
        return y * scale.transpose(1, 2).unsqueeze(-1)

    return _map(Net(forward, over=nn.Conv1d(1, 1, 3, padding=1, bias=False)))


def _shuffled(y: Tensor) -> Tensor:
    n, c, h, w = y.shape
    return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def _read_otherwise(y: Tensor) -> Tensor:
    n, c, h, w = y.shape
    return y.reshape(n, h, w, c).permute(0, 3, 1, 2)


# The first two need an even number of channels.
REARRANGED: tuple[Callable[[Tensor], Tensor], ...] = (
    _shuffled,
    lambda y: y.reshape(y.shape[0], y.shape[1] // 2, 2 * y.shape[2], y.shape[3]),
    lambda y: y.permute(0, 2, 1, 3),
    _read_otherwise,
    lambda y: F.pixel_unshuffle(F.pixel_shuffle(torch.cat([y] * 4, 1), 2), 2),
    lambda y: F.max_pool2d(y.permute(0, 2, 3, 1), 3, 1, 1).permute(0, 3, 1, 2),
    lambda y: F.pad(y.transpose(1, 3), (1, 1, 0, 0), "reflect").transpose(1, 3),
    lambda y: F.pad(y, (1, 0, 0, 1, 1, 2), value=0.3),
    lambda y: y.cumsum(1) + y.flip(1),
    lambda y: torch.stack([y, 2 * y, y.sin()], 1).flatten(1, 2),
    lambda y: y / (1 + y.abs().sum(1, keepdim=True)) + y.amax(1, keepdim=True),
)


def _rearranged(draw: Draw, x: Tensor) -> Layer:
    ways = REARRANGED[2 * (x.shape[1] % 2) :]
    way = ways[draw("rearranged", list(range(len(ways))))]
    return _map(Net(lambda m, y: way(y)))


def _grown(draw: Draw, x: Tensor) -> Layer:
    groups = draw("groups", [1, 2])
    wide = nn.Conv2d(x.shape[1], 6, 1)
    return _map(
        nn.Sequential(
            wide, nn.ConvTranspose2d(6, 8, 2, stride=2, groups=groups), nn.ReLU(), nn.MaxPool2d(2)
        )
    )


def _expected(draw: Draw, x: Tensor) -> Layer:
    """The mean of positions under a softmax over half of the channels."""
    side = nn.Conv2d(x.shape[1], 12, 1)

    def forward(m: Net, y: Tensor) -> Tensor:
        n, _, h, w = y.shape
        bins = m.side(y).view(n, 3, 4, h * w).transpose(1, 2).softmax(1)
        return m.mean(bins).view(n, 3, h, w)

    return _map(Net(forward, side=side, mean=nn.Conv2d(4, 1, 1, bias=False)))


MAPS: tuple[Make, ...] = (
    _convolution, _normed, _depthwise, _grouped, _residual, _concat, _split, _excited, _efficient,
    _rearranged, _rearranged, _grown, _expected,
)  # fmt: skip
