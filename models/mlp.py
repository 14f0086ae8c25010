"""The multilayer perceptron, trained by back-propagation.

Source: Rumelhart, Hinton, Williams, "Learning representations by back-propagating errors",
Nature 323, 1986. ReLU stands for the paper's logistic units.
"""

from itertools import pairwise

from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with ReLU between them: [N, C, H, W] -> hidden sizes -> [N, classes]."""

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 10,
        hidden: tuple[int, ...] = (256, 128),
        image_size: int = 28,
    ) -> None:
        """Build the layers for square pictures of ``image_size`` pixels."""
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise((in_channels * image_size**2, *hidden)):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden[-1], classes))

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [N, C, H, W], 0..1, to logits float32 [N, classes]."""
        logits: Tensor = self.layers(x)
        return logits
