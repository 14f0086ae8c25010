"""The perceptron: one layer of weights.

Source: Rosenblatt, "The perceptron: a probabilistic model for information storage and
organization in the brain", Psychological Review 65(6), 1958. One unit per class; the largest sum
wins instead of a threshold, and cross-entropy stands for the error-correction rule.
"""

from torch import Tensor, nn


class Perceptron(nn.Module):
    """A linear map of the pixels: [N, C, H, W] -> [N, classes]."""

    def __init__(self, in_channels: int = 1, classes: int = 10, image_size: int = 28) -> None:
        """Build the layer for square pictures of ``image_size`` pixels."""
        super().__init__()
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(in_channels * image_size**2, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [N, C, H, W], 0..1, to logits float32 [N, classes]."""
        logits: Tensor = self.fc(self.flatten(x))
        return logits
