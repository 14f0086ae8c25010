"""A small classification that training loops are tried on, in batches of any size."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from edgedl.compress.training import TrainingSettings

SETTINGS = TrainingSettings(epochs=3, batch_size=8, max_learning_rate=0.05, seed=2)


class Blobs:
    """Three overlapping clusters in the plane, in an order the generator draws."""

    def __init__(self, batch_size: int = 8, count: int = 96) -> None:
        generator = torch.Generator().manual_seed(1)
        self.labels = torch.arange(count) % 3
        centers = torch.tensor([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]])
        self.inputs = centers[self.labels] + torch.randn(count, 2, generator=generator)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.labels), generator=generator)
        for part in order.split(self.batch_size):
            yield self.inputs[part], self.labels[part]


def make_module(norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    middle: nn.Module = nn.BatchNorm1d(8) if norm else nn.Identity()
    return nn.Sequential(nn.Linear(2, 8), middle, nn.ReLU(), nn.Linear(8, 3))


def assert_same_weights(a: nn.Module, b: nn.Module) -> None:
    first, second = a.state_dict(), b.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
