"""LeNet-5 with ReLU and max pooling.

Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition",
1998, section II.B. As usual today, ReLU stands for the scaled tanh, max pooling for the trainable
subsampling, full connection for table I, and a linear layer for the radial-basis outputs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LeNet5(nn.Module):
    """Two convolutions and three linear layers.

    Shapes, for a 28x28 input: [N, C, 28, 28] -> conv1 [N, 6, 28, 28] -> pool [N, 6, 14, 14]
    -> conv2 [N, 16, 10, 10] -> pool [N, 16, 5, 5] -> 120 -> 84 -> [N, classes].
    """

    def __init__(self, in_channels: int = 1, classes: int = 10) -> None:
        """Build the layers for 28x28 pictures."""
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [N, C, 28, 28], 0..1, to logits float32 [N, classes]."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        logits: Tensor = self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))
        return logits
