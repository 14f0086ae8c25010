"""MTCNN, the three networks of a cascade that finds faces.

Source: Zhang, Zhang, Li, Qiao, "Joint face detection and alignment using multi-task cascaded
convolutional networks", 2016 (arXiv:1604.02878), figure 2; facenet_pytorch/models/mtcnn.py.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks.real_networks.network import Made, RealNetwork
from benchmarks.real_networks.pictures import (
    FACE_DATA,
    PHOTO_DATA,
    channels_first,
    crops,
    faces,
)
from benchmarks.real_networks.shelf import PackageShelf
from edgedl.models.data.packages import Package

PACKAGE = Package(
    "pip",
    "facenet-pytorch",
    "2.6.0",
    "ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca",
)


class Proposals(nn.Module):
    """P-Net: where faces may be, at every place of a picture."""

    def __init__(self) -> None:
        """Build it; names are those of the package's weights."""
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.pool1 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map pictures [N, 3, H, W] to corrections of boxes [N, 4, ...] and odds [N, 2, ...]."""
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.prelu2(self.conv2(x))
        x = self.prelu3(self.conv3(x))
        return self.conv4_2(x), torch.softmax(self.conv4_1(x), 1)


class Refinement(nn.Module):
    """R-Net: whether a crop is a face, and how its box is wrong."""

    def __init__(self) -> None:
        """Build it."""
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map crops [N, 3, 24, 24] to corrections [N, 4] and odds [N, 2]."""
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.prelu3(self.conv3(x))
        x = x.permute(0, 3, 2, 1).contiguous()
        x = self.prelu4(self.dense4(x.view(x.shape[0], -1)))
        return self.dense5_2(x), torch.softmax(self.dense5_1(x), 1)


class Output(nn.Module):
    """O-Net: as R-Net, and five points of the face."""

    def __init__(self) -> None:
        """Build it."""
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.pool3 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2 = nn.Linear(256, 2), nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map crops [N, 3, 48, 48] to corrections [N, 4], points [N, 10] and odds [N, 2]."""
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.pool3(self.prelu3(self.conv3(x)))
        x = self.prelu4(self.conv4(x))
        x = x.permute(0, 3, 2, 1).contiguous()
        x = self.prelu5(self.dense5(x.view(x.shape[0], -1)))
        return self.dense6_2(x), self.dense6_3(x), torch.softmax(self.dense6_1(x), 1)


def _maker(build: Callable[[], nn.Module], size: int) -> Callable[[Path, PackageShelf], Made]:
    def make(weights: Path, shelf: PackageShelf) -> Made:
        net = build()
        net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))

        def samples(first: int) -> npt.NDArray[np.float32]:
            both = [faces(shelf, size, size, first), crops(100, size, size, first)]
            return channels_first((np.concatenate(both) - 127.5) * 0.0078125)

        return Made(net, (samples(0),), (samples(1),))

    return make


NETWORKS = tuple(
    RealNetwork(
        name,
        "face detection",
        PACKAGE,
        "MIT",
        f"facenet_pytorch/data/{file}.pt",
        sha256,
        f"{FACE_DATA} and {PHOTO_DATA}",
        _maker(build, size),
    )
    for name, file, build, size, sha256 in (
        (
            "mtcnn-proposals",
            "pnet",
            Proposals,
            48,
            "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
        ),
        (
            "mtcnn-refinement",
            "rnet",
            Refinement,
            24,
            "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
        ),
        (
            "mtcnn-output",
            "onet",
            Output,
            48,
            "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
        ),
    )
)
