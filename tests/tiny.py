"""A small residual network with every operator of the CNN set, and a task made of noise."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedl.compress.subject.subject import Subject
from edgedl.runtime.preprocess.image import ImagePreprocessing
from edgedl.runtime.task.task import ArrayTask, Samples

CLASSES = ("cat", "dog", "bird", "fish")
SIDE = 12


class TinyNet(nn.Module):
    """conv+BN+ReLU6, depthwise, residual add, max pool, concat, average pool, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.pointwise = nn.Conv2d(8, 8, 1)
        self.branch = nn.Conv2d(8, 4, 1)
        self.fc = nn.Linear(12, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.bn(self.stem(x)))
        x = F.relu(self.pointwise(F.relu(self.depthwise(x))) + x)
        x = F.max_pool2d(x, 2)
        x = torch.cat([x, self.branch(x)], 1)
        x = F.avg_pool2d(x, 2)
        return self.fc(x.mean((2, 3)))


def make_net() -> TinyNet:
    """Return a net with seeded weights and batch-norm statistics that are not trivial."""
    torch.manual_seed(0)
    net = TinyNet()
    with torch.no_grad():
        net.bn.running_mean.uniform_(-0.2, 0.2)
        net.bn.running_var.uniform_(0.5, 1.5)
        net.bn.weight.uniform_(0.5, 1.5)
        net.bn.bias.uniform_(-0.2, 0.2)
    return net.eval()


def pictures(count: int, seed: int) -> Samples:
    """Return uint8 pictures [N, 12, 12, 3], smooth enough to differ, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(CLASSES), count)
    base = rng.integers(0, 256, (count, 3, 3, 3))
    images = base.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)
    return Samples((images,), labels)


def make_task() -> ArrayTask:
    return ArrayTask(
        name="noise",
        splits={"calibration": lambda: pictures(64, 1), "test": lambda: pictures(600, 2)},
        classes=CLASSES,
        preprocessing=ImagePreprocessing(SIDE, SIDE, "RGB"),
    )


def make_subject() -> Subject:
    return Subject("tiny", make_net(), make_task())
