"""EfficientNet: mobile inverted bottlenecks with squeeze-and-excitation and SiLU.

Source: Tan, Le, "EfficientNet: rethinking model scaling for convolutional neural networks", 2019
(arXiv:1905.11946), table 1 (B0) and section 3.3 (width and depth factors); Hu et al.,
"Squeeze-and-excitation networks", 2018, section 3. The lite variant (Liu, "Higher accuracy on
vision models with EfficientNet-Lite", 2020) drops squeeze-and-excitation, takes ReLU6 for SiLU,
and does not scale stem and head.
"""

import math

from torch import Tensor, nn

# Table 1, stages 2 to 8: expansion, kernel, stride, channels, layers.
_TABLE_1 = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


class SqueezeExcite(nn.Module):
    """Scale every channel by a gate computed from the channels' means."""

    def __init__(self, channels: int, squeezed: int) -> None:
        """Build the two 1x1 convolutions of the gate."""
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.activation = nn.SiLU()
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the same shape."""
        gate: Tensor = self.gate(self.expand(self.activation(self.reduce(self.pool(x)))))
        return x * gate


def convolution(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    published: bool = False,
) -> list[nn.Module]:
    """Return a convolution that keeps H / stride, and its batch norm.

    Args:
        in_channels: of the convolution.
        out_channels: of the convolution.
        kernel: height and width in pixels, odd.
        stride: 1 or 2.
        groups: of the convolution; all channels for a depthwise one.
        published: pad and normalise as TensorFlow does, which made the published weights: padding
            "SAME" puts the odd pixel of a strided convolution to the right and the bottom (for
            even sizes), and epsilon is 1e-3.
    """
    padding: list[nn.Module] = []
    if published and stride > 1:
        before, after = (kernel - stride) // 2, (kernel - stride + 1) // 2
        padding.append(nn.ZeroPad2d((before, after, before, after)))
    inside = 0 if padding else kernel // 2
    return [
        *padding,
        nn.Conv2d(in_channels, out_channels, kernel, stride, inside, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels, eps=1e-3 if published else 1e-5),
    ]


class MBConv(nn.Module):
    """1x1 expansion, depthwise, squeeze-and-excitation, 1x1 projection, shortcut."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int,
        expansion: int,
        lite: bool,
        published: bool,
    ) -> None:
        """Build the block; the gate is squeezed to a quarter of ``in_channels``."""
        super().__init__()
        hidden = in_channels * expansion
        activation = nn.ReLU6 if lite else nn.SiLU
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += convolution(in_channels, hidden, 1, published=published)
            layers.append(activation())
        layers += convolution(hidden, hidden, kernel, stride, hidden, published)
        layers.append(activation())
        if not lite:
            layers.append(SqueezeExcite(hidden, max(1, in_channels // 4)))
        layers += convolution(hidden, out_channels, 1, published=published)
        self.block = nn.Sequential(*layers)
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C_in, H, W] to [N, C_out, H / stride, W / stride]."""
        y: Tensor = self.block(x)
        return x + y if self.shortcut else y


class EfficientNet(nn.Module):
    """Stem, seven stages of MBConv blocks, 1x1 head, global average pool, one linear layer.

    Shapes of B0 for 224x224: [N, C, 224, 224] -> stem [N, 32, 112, 112] -> [N, 320, 7, 7]
    -> head [N, 1280, 7, 7] -> [N, classes]. The small one keeps stride 1 in the stem and in the
    fifth stage (80 channels), so that 32x32 ends at [N, 320, 4, 4].
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 10,
        width: float = 1.0,
        depth: float = 1.0,
        head: int = 1280,
        small: bool = True,
        lite: bool = False,
        published: bool = False,
    ) -> None:
        """Build the network.

        Args:
            in_channels: of the picture.
            classes: number of outputs.
            width: factor on channels, rounded to multiples of 8 (1.0 is B0, 2.0 is B7).
            depth: factor on layers, rounded up (1.0 is B0, 3.1 is B7).
            head: channels of the last convolution at width 1.
            small: for pictures of about 32 pixels instead of 224.
            lite: the lite variant.
            published: pad and normalise as the published weights want it; see ``convolution``.
        """
        super().__init__()

        def scaled(channels: int) -> int:
            rounded = max(8, int(channels * width + 4) // 8 * 8)
            return rounded + 8 if rounded < 0.9 * channels * width else rounded

        activation = nn.ReLU6 if lite else nn.SiLU
        channels = 32 if lite else scaled(32)
        top = head if lite else scaled(head)
        stride = 1 if small else 2
        self.stem = nn.Sequential(
            *convolution(in_channels, channels, 3, stride, published=published), activation()
        )
        blocks: list[nn.Module] = []
        for stage, (expansion, kernel, stage_stride, base, layers) in enumerate(_TABLE_1):
            fixed = lite and stage in (0, len(_TABLE_1) - 1)
            for layer in range(layers if fixed else math.ceil(layers * depth)):
                stride = stage_stride if layer == 0 and not (small and stage == 3) else 1
                blocks.append(
                    MBConv(channels, scaled(base), kernel, stride, expansion, lite, published)
                )
                channels = scaled(base)
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(*convolution(channels, top, 1, published=published), activation())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(top, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [N, C, H, W] to logits float32 [N, classes]."""
        x = self.head(self.blocks(self.stem(x)))
        logits: Tensor = self.fc(self.dropout(self.pool(x).flatten(1)))
        return logits
