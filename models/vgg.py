"""VGG networks: stacks of 3x3 convolutions between max pools.

Source: Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition",
2015 (arXiv:1409.1556), table 1. As usual today a batch norm follows every convolution; for small
pictures one linear layer takes the place of the paper's three (4096, 4096, classes).
"""

from itertools import pairwise

from torch import Tensor, nn

# Table 1, columns A, B, D, E: output channels of each convolution, "M" for a 2x2 max pool.
CONFIGURATIONS: dict[str, tuple[int | str, ...]] = {
    "vgg11": (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    "vgg13": (64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    "vgg16": (
        64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M",
    ),
    "vgg19": (
        64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M",
        512, 512, 512, 512, "M", 512, 512, 512, 512, "M",
    ),
}  # fmt: skip


class VGG(nn.Module):
    """Stacks of 3x3 convolutions, each followed by batch norm and ReLU, and linear layers.

    Shapes of VGG-11 at width 1, for 32x32: [N, C, 32, 32] -> [N, 64, 16, 16] -> [N, 128, 8, 8]
    -> [N, 256, 4, 4] -> [N, 512, 2, 2] -> [N, 512, 1, 1] -> [N, classes].
    """

    def __init__(
        self,
        configuration: str = "vgg11",
        in_channels: int = 3,
        classes: int = 10,
        width: float = 1.0,
        image_size: int = 32,
        hidden: tuple[int, ...] = (),
    ) -> None:
        """Build the network.

        Args:
            configuration: "vgg11", "vgg13", "vgg16" or "vgg19".
            in_channels: of the picture.
            classes: number of outputs.
            width: factor on every channel count of table 1.
            image_size: height and width in pixels, a multiple of 32.
            hidden: sizes of the linear layers before the last; the paper's are (4096, 4096).
        """
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for item in CONFIGURATIONS[configuration]:
            if isinstance(item, str):
                layers.append(nn.MaxPool2d(2))
                continue
            out = round(item * width)
            layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out)]
            layers.append(nn.ReLU())
            channels = out
        self.features = nn.Sequential(*layers)
        sizes = (channels * (image_size // 32) ** 2, *hidden)
        classifier: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(sizes):
            classifier += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(0.5)]
        self.classifier = nn.Sequential(*classifier, nn.Linear(sizes[-1], classes))

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [N, C, H, W], 0..1, to logits float32 [N, classes]."""
        logits: Tensor = self.classifier(self.features(x))
        return logits
