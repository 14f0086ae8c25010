"""MobileNetV3-Large: inverted residuals with squeeze-and-excite gates and hard swishes.

Source: Howard et al., "Searching for MobileNetV3", 2019 (arXiv:1905.02244), table 1 (network),
section 5.2 (hard swish), section 5.3 (gates of a quarter of the expansion).
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

# Table 1: kernel, expansion, channels, gate, hard swish, stride.
_TABLE_1 = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)
_LAST, _HEAD = 960, 1280


def _convolution(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(out_channels, eps=1e-3),
    )


class Gate(nn.Module):
    """A factor between 0 and 1 per channel, from the means of all of them."""

    def __init__(self, channels: int) -> None:
        """Build a gate whose middle has a quarter of the channels, rounded to a multiple of 8.

        Rounded up where rounding to the nearest would take more than a tenth away.
        """
        super().__init__()
        nearest = max(8, int(channels / 4 + 4) // 8 * 8)
        middle = nearest + 8 if nearest < 0.9 * channels / 4 else nearest
        self.squeeze = nn.Conv2d(channels, middle, 1)
        self.excite = nn.Conv2d(middle, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to its product with the gate, of the same shape."""
        means = F.adaptive_avg_pool2d(x, 1)
        return x * F.hardsigmoid(self.excite(F.relu(self.squeeze(means))))


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise, gate, 1x1 projection; a shortcut where shapes agree."""

    def __init__(
        self,
        in_channels: int,
        kernel: int,
        expansion: int,
        channels: int,
        gate: bool,
        hard_swish: bool,
        stride: int,
    ) -> None:
        """Build one row of table 1."""
        super().__init__()
        activation: Callable[[], nn.Module] = nn.Hardswish if hard_swish else nn.ReLU
        expands = expansion != in_channels
        self.block = nn.Sequential(
            *([_convolution(in_channels, expansion, 1), activation()] if expands else []),
            _convolution(expansion, expansion, kernel, stride, groups=expansion),
            activation(),
            *([Gate(expansion)] if gate else []),
            _convolution(expansion, channels, 1),
        )
        self.shortcut = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C_in, H, W] to [N, C_out, H / stride, W / stride]."""
        y: Tensor = self.block(x)
        return x + y if self.shortcut else y


class MobileNetV3(nn.Module):
    """Stem, fifteen inverted residuals, 1x1 head, global average pool, two linear layers.

    Shapes for 224x224: [N, C, 224, 224] -> stem [N, 16, 112, 112] -> [N, 160, 7, 7] -> head
    [N, 960, 7, 7] -> [N, 1280] -> [N, classes].
    """

    def __init__(self, in_channels: int = 3, classes: int = 1000) -> None:
        """Build the network for pictures of ``in_channels``."""
        super().__init__()
        channels = 16
        layers: list[nn.Module] = [_convolution(in_channels, channels, 3, 2), nn.Hardswish()]
        for kernel, expansion, out_channels, gate, hard_swish, stride in _TABLE_1:
            layers.append(
                InvertedResidual(
                    channels, kernel, expansion, out_channels, gate, hard_swish, stride
                )
            )
            channels = out_channels
        self.features = nn.Sequential(*layers, _convolution(channels, _LAST, 1), nn.Hardswish())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(nn.Linear(_LAST, _HEAD), nn.Hardswish(), nn.Dropout(0.2))
        self.fc = nn.Linear(_HEAD, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [N, C, H, W] to logits float32 [N, classes]."""
        logits: Tensor = self.fc(self.head(self.pool(self.features(x)).flatten(1)))
        return logits
