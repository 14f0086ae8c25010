"""Residual networks: MLPerf Tiny's of eight layers, the paper's for CIFAR and for ImageNet.

Source: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2016, figure 2
(left) and section 4.2; Banbury et al., "MLPerf Tiny benchmark", 2021, section 4 (the image
classification reference: three stacks of one block each, 16, 32 and 64 channels).
"""

import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut (1x1 convolution where shapes change)."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, shortcut_norm: bool = False
    ) -> None:
        """Build the block.

        Args:
            in_channels: of the input.
            out_channels: of the output.
            stride: of the first convolution and of the shortcut.
            shortcut_norm: whether a batch norm follows a shortcut convolution, as in the paper;
                the MLPerf Tiny network has none.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            convolution = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            norm = [nn.BatchNorm2d(out_channels)] if shortcut_norm else []
            self.shortcut = nn.Sequential(convolution, *norm) if norm else convolution

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C_in, H, W] to [N, C_out, H / stride, W / stride]."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution, a quarter of the output channels inside (figure 5, right)."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, shortcut_norm: bool = True
    ) -> None:
        """Build the block; the 3x3 convolution has the stride."""
        super().__init__()
        inner = out_channels // 4
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            convolution = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            norm = [nn.BatchNorm2d(out_channels)] if shortcut_norm else []
            self.shortcut = nn.Sequential(convolution, *norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C_in, H, W] to [N, C_out, H / stride, W / stride]."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


class ResNet8(nn.Module):
    """The MLPerf Tiny image-classification network, 78 thousand parameters.

    Shapes, for a 32x32 input: [N, C, 32, 32] -> stem [N, 16, 32, 32] -> stacks [N, 16, 32, 32],
    [N, 32, 16, 16], [N, 64, 8, 8] -> global average pool [N, 64] -> [N, classes].
    Pixels enter as 0..1 without mean and deviation: the batch norm behind the stem learns them,
    and an 8-bit pixel is then exactly one quantization step.
    """

    def __init__(self, in_channels: int = 3, classes: int = 10) -> None:
        """Build stem, three stacks and classifier."""
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.stack1 = BasicBlock(16, 16, 1)
        self.stack2 = BasicBlock(16, 32, 2)
        self.stack3 = BasicBlock(32, 64, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [N, C, H, W], 0..1, to logits float32 [N, classes]."""
        x = F.relu(self.bn(self.conv(x)))
        x = self.stack3(self.stack2(self.stack1(x)))
        logits: Tensor = self.fc(self.pool(x).flatten(1))
        return logits


class ResNetCifar(nn.Module):
    """The 6n + 2 layer networks for 32x32 pictures; n = 3 is ResNet-20, 0.27 million parameters.

    Shapes: [N, C, 32, 32] -> stem [N, 16, 32, 32] -> stacks of n blocks [N, 16, 32, 32],
    [N, 32, 16, 16], [N, 64, 8, 8] -> global average pool [N, 64] -> [N, classes].

    Source: He et al., 2016, section 4.2 and table 6. Shortcuts that change shape are 1x1
    convolutions (option B) where the paper's are padded identities (option A).
    """

    def __init__(self, blocks: int = 3, in_channels: int = 3, classes: int = 10) -> None:
        """Build stem, three stacks of ``blocks`` blocks (n in the paper), and classifier."""
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.stacks = _stacks(16, [(16, blocks, 1), (32, blocks, 2), (64, blocks, 2)])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [N, C, H, W], 0..1, to logits float32 [N, classes]."""
        x = self.stacks(F.relu(self.bn(self.conv(x))))
        logits: Tensor = self.fc(self.pool(x).flatten(1))
        return logits


def _stacks(
    channels: int,
    rows: list[tuple[int, int, int]],
    block: type[BasicBlock | Bottleneck] = BasicBlock,
) -> nn.Sequential:
    """Build stacks of blocks from rows (output channels, blocks, stride of the first)."""
    stacks = []
    for width, blocks, stride in rows:
        first = block(channels, width, stride, shortcut_norm=True)
        rest = [block(width, width, 1, shortcut_norm=True) for _ in range(blocks - 1)]
        stacks.append(nn.Sequential(first, *rest))
        channels = width
    return nn.Sequential(*stacks)


# Table 1: blocks of the four stacks.
_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class ResNet(nn.Module):
    """The networks for 224x224 pictures; 18 layers have 11.7, 50 layers 25.6 million parameters.

    Shapes with 18 layers: [N, 3, 224, 224] -> stem [N, 64, 112, 112] -> pool [N, 64, 56, 56]
    -> stacks [N, 64, 56, 56], [N, 128, 28, 28], [N, 256, 14, 14], [N, 512, 7, 7] -> [N, classes].
    From 50 layers on the blocks are bottlenecks and the stacks four times as wide.

    Source: He et al., 2016, table 1.
    """

    def __init__(self, depth: int = 18, in_channels: int = 3, classes: int = 1000) -> None:
        """Build stem, four stacks, and classifier.

        Args:
            depth: 18, 34, 50 or 101 layers.
            in_channels: of the picture.
            classes: number of outputs.
        """
        super().__init__()
        block, factor = (BasicBlock, 1) if depth < 50 else (Bottleneck, 4)
        rows = [
            (width * factor, blocks, 1 if width == 64 else 2)
            for width, blocks in zip((64, 128, 256, 512), _DEPTHS[depth], strict=True)
        ]
        self.conv = nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False)
        self.bn = nn.BatchNorm2d(64)
        self.max_pool = nn.MaxPool2d(3, 2, 1)
        self.stacks = _stacks(64, rows, block)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * factor, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [N, C, 224, 224] to logits float32 [N, classes]."""
        x = self.max_pool(F.relu(self.bn(self.conv(x))))
        logits: Tensor = self.fc(self.pool(self.stacks(x)).flatten(1))
        return logits
