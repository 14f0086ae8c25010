"""Static int8 against float32 and the runtimes' own quantizers at 224x224: speed only.

Run as ``python -m benchmarks.runtimes.random_weights NETWORK [--without-amx]``, with
resnet18 or mobilenet_v3. Their weights are random, their scores on noise mean nothing.
"""

import sys
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from benchmarks.runtimes.peers import compare
from edgedl.compress.subject.subject import Subject
from edgedl.models.mobilenet_v3 import MobileNetV3
from edgedl.models.resnet import ResNet
from edgedl.runtime.measure.amx import refuse_amx
from edgedl.runtime.task.task import ArrayTask, Samples

SAMPLES = 32
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: ResNet(18),
    "mobilenet_v3": MobileNetV3,
}


def noise(seed: int) -> Samples:
    """Return normal noise float32 [32, 3, 224, 224] with labels of no meaning."""
    rng = np.random.default_rng(seed)
    pictures = rng.standard_normal((SAMPLES, 3, 224, 224)).astype(np.float32)
    return Samples((pictures,), np.zeros(SAMPLES, np.int64))


def make_subject(name: str) -> Subject:
    """Return a network with seeded random weights and settled batch-norm statistics."""
    torch.manual_seed(0)
    net = NETWORKS[name]().train()
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(8, 3, 224, 224))
    task = ArrayTask("noise", {"calibration": lambda: noise(1), "test": lambda: noise(2)})
    return Subject(f"{name}-random", net.eval(), task)


if __name__ == "__main__":
    if "--without-amx" in sys.argv:
        print(refuse_amx())
    compare(make_subject(sys.argv[1]))
