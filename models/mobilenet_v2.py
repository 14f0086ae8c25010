"""MobileNetV2: inverted residuals with depthwise convolutions and linear bottlenecks.

Source: Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: inverted residuals and linear
bottlenecks", 2018 (arXiv:1801.04381), table 1 (block), table 2 (network), figure 4d (stride).
"""

from torch import Tensor, nn

# Table 2: expansion t, channels c, repeats n, stride s of the first repeat.
_TABLE_2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _convolution(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    return [
        nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(out_channels),
    ]


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 linear projection; a shortcut where shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        """Build the block of table 1 with expansion factor ``expansion``."""
        super().__init__()
        hidden = in_channels * expansion
        expand = [*_convolution(in_channels, hidden, 1), nn.ReLU6()] if expansion != 1 else []
        self.block = nn.Sequential(
            *expand,
            *_convolution(hidden, hidden, 3, stride, groups=hidden),
            nn.ReLU6(),
            *_convolution(hidden, out_channels, 1),
        )
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C_in, H, W] to [N, C_out, H / stride, W / stride]."""
        y: Tensor = self.block(x)
        return x + y if self.shortcut else y


class MobileNetV2(nn.Module):
    """Stem, seventeen inverted residuals, 1x1 head, global average pool, one linear layer.

    Shapes at width 1 for 224x224: [N, C, 224, 224] -> stem [N, 32, 112, 112] -> [N, 320, 7, 7]
    -> head [N, 1280, 7, 7] -> [N, classes]. The small one keeps stride 1 in the stem and in the
    fourth row of table 2, so that 32x32 ends at [N, 320, 4, 4].
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 10,
        width: float = 1.0,
        head: int = 1280,
        small: bool = True,
    ) -> None:
        """Build the network.

        Args:
            in_channels: of the picture.
            classes: number of outputs.
            width: factor on the channels of table 2, rounded to multiples of 8.
            head: channels of the last convolution; the paper's are 1280.
            small: for pictures of about 32 pixels instead of 224.
        """
        super().__init__()

        def scaled(channels: int) -> int:
            rounded = max(8, int(channels * width + 4) // 8 * 8)
            return rounded + 8 if rounded < 0.9 * channels * width else rounded

        channels = scaled(32)
        layers = [*_convolution(in_channels, channels, 3, 1 if small else 2), nn.ReLU6()]
        for row, (expansion, base, repeats, row_stride) in enumerate(_TABLE_2):
            for repeat in range(repeats):
                stride = row_stride if repeat == 0 and not (small and row == 3) else 1
                layers.append(InvertedResidual(channels, scaled(base), stride, expansion))
                channels = scaled(base)
        self.features = nn.Sequential(*layers, *_convolution(channels, head, 1), nn.ReLU6())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(head, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [N, C, H, W], 0..1, to logits float32 [N, classes]."""
        logits: Tensor = self.fc(self.dropout(self.pool(self.features(x)).flatten(1)))
        return logits
