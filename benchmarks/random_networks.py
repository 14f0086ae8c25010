"""Networks of full size with random weights, as subjects: times are valid, scores mean nothing.

``benchmarks/random_networks.py:resnet50`` is a SUBJECT of the commands. A function is called
once per process, with the same seeds each time.
"""

from collections.abc import Callable

import numpy as np
import torch

from edgedl.compress.subject.subject import Subject
from edgedl.models.mobilenet_v3 import MobileNetV3
from edgedl.models.resnet import ResNet
from edgedl.runtime.task.task import ArrayTask, Samples

CALIBRATION_SAMPLES = 128
TEST_SAMPLES = 64


def resnet18() -> Subject:
    """Return ResNet-18 for 224x224 pictures."""
    return _subject("resnet18-random", lambda: ResNet(18))


def resnet50() -> Subject:
    """Return ResNet-50 for 224x224 pictures."""
    return _subject("resnet50-random", lambda: ResNet(50))


def mobilenet_v3() -> Subject:
    """Return MobileNetV3-Large for 224x224 pictures."""
    return _subject("mobilenet_v3-random", MobileNetV3)


def _noise(count: int, seed: int) -> Samples:
    """Return normal noise float32 [count, 3, 224, 224] with labels of no meaning."""
    rng = np.random.default_rng(seed)
    pictures = rng.standard_normal((count, 3, 224, 224), dtype=np.float32)
    return Samples((pictures,), np.zeros(count, np.int64))


def _subject(name: str, build: Callable[[], torch.nn.Module]) -> Subject:
    """Return a network with seeded random weights and settled batch-norm statistics."""
    torch.manual_seed(0)
    net = build().train()
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(8, 3, 224, 224))
    splits = {
        "calibration": lambda: _noise(CALIBRATION_SAMPLES, 1),
        "test": lambda: _noise(TEST_SAMPLES, 2),
    }
    return Subject(name, net.eval(), ArrayTask("noise", splits))
