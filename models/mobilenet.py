"""MobileNet: depthwise separable convolutions, the first network made for phones.

Source: Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision
applications", 2017 (arXiv:1704.04861), table 1 (network), figure 3 (block).
"""

from torch import Tensor, nn

# Table 1: channels and stride of each depthwise separable block.
_TABLE_1 = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)


def _convolution(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    return [
        nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    ]


class MobileNet(nn.Module):
    """Stem, thirteen depthwise separable blocks, global average pool, one linear layer.

    Shapes at width 1 for 224x224: [N, C, 224, 224] -> stem [N, 32, 112, 112] -> [N, 1024, 7, 7]
    -> [N, classes]. The small one keeps stride 1 in the stem, so that 28x28 ends at
    [N, 1024, 2, 2].
    """

    def __init__(
        self, in_channels: int = 3, classes: int = 10, width: float = 1.0, small: bool = True
    ) -> None:
        """Build the network.

        Args:
            in_channels: of the picture.
            classes: number of outputs.
            width: factor on all channels, the paper's alpha.
            small: for pictures of about 32 pixels instead of 224.
        """
        super().__init__()
        channels = int(32 * width)
        layers = _convolution(in_channels, channels, 3, 1 if small else 2)
        for base, stride in _TABLE_1:
            layers += _convolution(channels, channels, 3, stride, groups=channels)
            layers += _convolution(channels, int(base * width), 1)
            channels = int(base * width)
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [N, C, H, W], 0..1, to logits float32 [N, classes]."""
        logits: Tensor = self.fc(self.pool(self.features(x)).flatten(1))
        return logits
