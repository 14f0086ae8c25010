"""GoogLeNet: inception blocks of four branches side by side, joined by concatenation.

Source: Szegedy et al., "Going deeper with convolutions", 2015 (arXiv:1409.4842), figure 2b and
table 1. Batch norm follows every convolution (Ioffe, Szegedy, 2015); the two auxiliary
classifiers, a help for training without it, are left out.
"""

import torch
from torch import Tensor, nn

# Table 1: outputs of 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection; "M" is a max pool.
_TABLE_1: tuple[tuple[int, int, int, int, int, int] | str, ...] = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    "M",
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    "M",
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)


def _convolution(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


class Inception(nn.Module):
    """Branches 1x1; 1x1 then 3x3; 1x1 then 5x5; max pool then 1x1; concatenated (figure 2b)."""

    def __init__(self, in_channels: int, sizes: tuple[int, int, int, int, int, int]) -> None:
        """Build the four branches; ``sizes`` is a row of table 1."""
        super().__init__()
        one, reduce3, three, reduce5, five, pool = sizes
        self.branch1 = _convolution(in_channels, one, 1)
        self.branch3 = nn.Sequential(
            _convolution(in_channels, reduce3, 1), _convolution(reduce3, three, 3)
        )
        self.branch5 = nn.Sequential(
            _convolution(in_channels, reduce5, 1), _convolution(reduce5, five, 5)
        )
        self.branch_pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), _convolution(in_channels, pool, 1))
        self.out_channels = one + three + five + pool

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, out_channels, H, W]."""
        branches = [self.branch1(x), self.branch3(x), self.branch5(x), self.branch_pool(x)]
        return torch.cat(branches, 1)


class GoogLeNet(nn.Module):
    """Stem, nine inception blocks, global average pool, one linear layer.

    Shapes at width 1, for 32x32 with the small stem: [N, C, 32, 32] -> stem [N, 192, 16, 16]
    -> 3a, 3b [N, 480, 16, 16] -> 4a..4e [N, 832, 8, 8] -> 5a, 5b [N, 1024, 4, 4] -> [N, classes].
    """

    def __init__(
        self, in_channels: int = 3, classes: int = 10, width: float = 1.0, small: bool = True
    ) -> None:
        """Build the network.

        Args:
            in_channels: of the picture.
            classes: number of outputs.
            width: factor on every channel count of table 1.
            small: a stem of two 3x3 convolutions and one pool, for pictures of about 32 pixels;
                otherwise the paper's, for 224 (7x7 stride 2, pool, 1x1, 3x3, pool).
        """
        super().__init__()

        def scaled(channels: int) -> int:
            return max(4, round(channels * width / 4) * 4)

        first, stem = scaled(64), scaled(192)
        layers: list[nn.Module]
        if small:
            layers = [_convolution(in_channels, first, 3), nn.MaxPool2d(3, 2, 1)]
        else:
            layers = [_convolution(in_channels, first, 7, 2), nn.MaxPool2d(3, 2, 1)]
            layers.append(_convolution(first, first, 1))
        layers.append(_convolution(first, stem, 3))
        if not small:
            layers.append(nn.MaxPool2d(3, 2, 1))
        channels = stem
        for row in _TABLE_1:
            if isinstance(row, str):
                layers.append(nn.MaxPool2d(3, 2, 1))
                continue
            one, reduce3, three, reduce5, five, pool = (scaled(size) for size in row)
            block = Inception(channels, (one, reduce3, three, reduce5, five, pool))
            layers.append(block)
            channels = block.out_channels
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [N, C, H, W], 0..1, to logits float32 [N, classes]."""
        logits: Tensor = self.fc(self.dropout(self.pool(self.features(x)).flatten(1)))
        return logits
