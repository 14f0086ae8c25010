"""A traced network trains as the module that it was traced from."""

import pytest
import torch
from small_networks import noise
from torch import Tensor, nn

from edgedl.compress.graph.trace import export_graph
from edgedl.compress.graph.traced_network import TracedNetwork


def traced(module: nn.Module, *inputs: Tensor) -> TracedNetwork:
    return TracedNetwork(export_graph(module.eval(), inputs))


@pytest.mark.parametrize("momentum", [0.1, 0.3, None])
def test_statistics_move_in_training(momentum: float | None) -> None:
    x = noise(8, 3, 6, 6) + 2
    module = nn.Sequential(nn.BatchNorm2d(3, momentum=momentum))
    network = traced(module, x)
    network.train()
    network(x)
    expected = (momentum or 0.1) * x.mean((0, 2, 3))
    torch.testing.assert_close(network.tensors()["0.running_mean"], expected)


def test_a_batch_norm_without_statistics_stays_what_it_is() -> None:
    x = noise(8, 3, 6, 6)
    module = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False))
    network = traced(module, x)
    for mode in (True, False):
        torch.testing.assert_close(network.train(mode)(x), module(x))


@pytest.mark.parametrize("kind", [nn.Dropout, nn.AlphaDropout, nn.FeatureAlphaDropout])
def test_dropout_is_for_training(kind: type[nn.Module]) -> None:
    x = noise(4, 6, 5, 5)
    network = traced(nn.Sequential(nn.Conv2d(6, 6, 1), kind(0.5)), x)
    whole = network(x)
    assert not torch.equal(network.train()(x), whole)
    assert torch.equal(network.eval()(x), whole)


def test_what_nothing_reads_is_not_there() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.idle, self.used = nn.Linear(6, 9), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.idle(x)
            return self.used(x)

    graph = traced(Idle(), noise(2, 6)).graph.graph
    assert not [node for node in graph.nodes if "idle" in str(node.target)]
