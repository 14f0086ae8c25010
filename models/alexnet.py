"""AlexNet: five convolutions with overlapping max pools, three linear layers.

Source: Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural
networks", 2012, section 3.5 and figure 2. Batch norm stands for the local response
normalization of section 3.3, and the two halves of the network are joined.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class AlexNet(nn.Module):
    """Convolutions 1, 2 and 5 are followed by a 3x3 max pool of stride 2 (section 3.4).

    Shapes of the small one, for 32x32: [N, C, 32, 32] -> conv1 5x5, pool [N, 32, 15, 15]
    -> conv2 5x5, pool [N, 96, 7, 7] -> conv3, conv4, conv5 3x3, pool [N, 128, 3, 3] -> 256 -> 256
    -> [N, classes]. Of the paper's, for 227x227: conv1 11x11 stride 4, pool [N, 96, 27, 27]
    -> [N, 256, 13, 13] -> [N, 256, 6, 6] -> 4096 -> 4096 -> [N, classes].
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 10,
        widths: tuple[int, int, int, int, int] = (32, 96, 192, 128, 128),
        hidden: int = 256,
        small: bool = True,
    ) -> None:
        """Build the network.

        Args:
            in_channels: of the picture.
            classes: number of outputs.
            widths: output channels of the convolutions; the paper's are (96, 256, 384, 384, 256).
            hidden: size of the two linear layers; the paper's is 4096.
            small: for 32x32 pictures, with a first convolution 5x5 of stride 1; otherwise for
                227x227, with the paper's 11x11 of stride 4.
        """
        super().__init__()
        kernel, stride, padding = (5, 1, 2) if small else (11, 4, 0)
        kernels = (kernel, 5, 3, 3, 3)
        channels = (in_channels, *widths)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(
                channels[i], channels[i + 1], kernels[i],
                stride if i == 0 else 1, padding if i == 0 else kernels[i] // 2, bias=False,
            )
            for i in range(5)
        )  # fmt: skip
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        side = 3 if small else 6
        self.fc1 = nn.Linear(widths[-1] * side * side, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, classes)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [N, C, H, W], 0..1, to logits float32 [N, classes]."""
        for i, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = F.relu(norm(convolution(x)))
            if i in (0, 1, 4):
                x = F.max_pool2d(x, 3, 2)
        x = F.relu(self.fc1(self.dropout(x.flatten(1))))
        logits: Tensor = self.fc3(F.relu(self.fc2(self.dropout(x))))
        return logits
