"""A network of one's own, for ``edgedl compress blob_finder.py:subject``.

The network finds the centre of a bright blob in a noisy 24x24 picture. It is trained here in a few
seconds; yours would load its weights instead. Its data and metric are in ``blobs.py``.
"""

import torch
import torch.nn.functional as F
from blobs import make_pictures, task
from torch import Tensor, nn

from edgedl import Subject


class BlobFinder(nn.Module):
    """Depthwise-separable convolutions, then the blob's row and column in 0..1."""

    def __init__(self) -> None:
        """Build the layers."""
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16))
        self.depthwise = nn.Sequential(
            nn.Conv2d(16, 16, 3, 2, 1, groups=16, bias=False), nn.BatchNorm2d(16)
        )
        self.pointwise = nn.Sequential(nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32))
        self.head = nn.Linear(32 * 6 * 6, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [N, 1, 24, 24] to float32 [N, 2]."""
        x = F.relu6(self.stem(x))
        x = F.relu6(self.pointwise(F.relu6(self.depthwise(x))))
        return self.head(x.flatten(1))


def train(net: BlobFinder) -> None:
    """Fit the network."""
    data = make_pictures(4096, seed=0)
    x, y = torch.from_numpy(data.inputs[0]), torch.from_numpy(data.labels)
    epochs, batch_size = 20, 64
    optimizer = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1e-2, total_steps=epochs * len(x) // batch_size
    )
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(batch_size):
            optimizer.zero_grad()
            F.mse_loss(net(x[batch]), y[batch]).backward()
            optimizer.step()
            schedule.step()


def subject() -> Subject:
    """Return what edgedl compresses: the network and its task."""
    torch.manual_seed(0)
    net = BlobFinder()
    train(net)
    return Subject("blob_finder", net.eval(), task(), licence="public domain", data="generated")
