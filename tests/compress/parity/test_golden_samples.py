"""Golden samples reach as many channels as some samples can, and the rest is counted."""

import numpy as np
import pytest
import torch
from torch import nn

from edgedl.compress.graph.trace import trace
from edgedl.compress.parity.golden_samples import channels_reached, choose_golden
from edgedl.runtime.bundle.certificates import GoldenReach
from edgedl.runtime.bundle.golden import GOLDEN_SAMPLES
from edgedl.runtime.task.task import ArrayTask, Samples


def task_of(x: np.ndarray) -> ArrayTask:
    def samples() -> Samples:
        return Samples((x,), np.arange(len(x)) % 2)

    return ArrayTask("golden", {"calibration": samples, "test": samples})


class Selecting(nn.Module):
    """Channel i of a picture is above 0 behind the ReLU where value i of its first row is."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(channels)[:, :, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(x)).mean((2, 3))


def one_channel_each(count: int, channels: int, order: list[int]) -> np.ndarray:
    """Return pictures of which each has one channel above 0: [N, C, 2, 2]."""
    x = np.full((count, channels, 2, 2), -1.0, np.float32)
    for sample, channel in enumerate(order):
        x[sample, channel, 1, 0] = 1
    return x


def test_samples_that_reach_other_channels_are_taken() -> None:
    x = one_channel_each(40, 5, [0] * 20 + [1] * 16 + [3, 2, 4, 4])
    graph = trace(Selecting(5), (torch.from_numpy(x[:2]),))
    reached = channels_reached(graph, (x,))
    np.testing.assert_array_equal(reached.argmax(1), [0] * 20 + [1] * 16 + [3, 2, 4, 4])
    golden, reach = choose_golden(graph, task_of(x))
    np.testing.assert_array_equal(golden.inputs[0], x[[0, 20, 36, 37, 38]])
    np.testing.assert_array_equal(golden.labels, np.array([0, 20, 36, 37, 38]) % 2)
    assert reach == GoldenReach(5, 5)


def test_channels_that_no_sample_reaches_are_counted() -> None:
    x = one_channel_each(12, 8, [0, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0])
    graph = trace(Selecting(8), (torch.from_numpy(x[:2]),))
    golden, reach = choose_golden(graph, task_of(x))
    assert len(golden.labels) == GOLDEN_SAMPLES
    assert reach == GoldenReach(5, 8)
    assert "5 of 8 channels" in reach.describe()
    assert "others are not checked" in reach.describe()


def test_features_behind_a_linear_layer_are_the_last_axis() -> None:
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(3))
    x = np.full((2, 4, 3), -1, np.float32)
    x[1, 2, 1] = 1
    graph = trace(net.eval(), (torch.from_numpy(x),))
    assert channels_reached(graph, (x,)).tolist() == [[False] * 3, [False, True, False]]


@pytest.mark.parametrize("count", [1, 3])
def test_a_task_of_few_samples_gives_what_it_has(count: int) -> None:
    x = np.random.default_rng(0).normal(size=(count, 6)).astype(np.float32)
    graph = trace(nn.Sequential(nn.Linear(6, 2), nn.Sigmoid()).eval(), (torch.from_numpy(x),))
    golden, reach = choose_golden(graph, task_of(x))
    np.testing.assert_array_equal(golden.inputs[0], x)
    assert reach == GoldenReach(0, 0)
    assert "reach all" in reach.describe()
