"""Pools: averages over a whole picture, activations behind max pools."""

from collections.abc import Callable

import pytest
import torch.nn.functional as F
from rewritten_graphs import operators, traced
from small_networks import Net, trained
from torch import nn

from edgedl.compress.graph.operators.operator import aten

IMAGES = (3, 8, 8)


@pytest.mark.parametrize("activation", [F.relu, F.relu6, F.hardtanh])
def test_an_activation_behind_a_max_pool_moves_to_its_layer(activation: Callable) -> None:
    net = Net(
        lambda net, x: activation(F.max_pool2d(net.norm(net.conv(x)), 3, 2, 1)),
        conv=nn.Conv2d(3, 4, 3),
        norm=trained(nn.BatchNorm2d(4)),
    )
    graph = traced(net, *IMAGES)
    found = [n for n in graph.graph.nodes if n.op == "call_function"]
    assert [n.target for n in found[::2]] == [aten.conv2d.default, aten.max_pool2d.default]
    assert found[1].meta["val"].shape == found[0].meta["val"].shape


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: F.relu(F.max_pool2d(x, 2)),
        lambda net, x: (lambda y: F.relu(F.max_pool2d(y, 2)) + F.avg_pool2d(y, 2))(net.conv(x)),
        lambda net, x: (lambda y: F.relu(y) + y)(F.max_pool2d(net.conv(x), 2)),
        lambda net, x: F.relu(F.avg_pool2d(net.conv(x), 2)),
    ],
)
def test_an_activation_whose_input_others_need_stays(forward: Callable) -> None:
    graph = traced(Net(forward, conv=nn.Conv2d(3, 4, 3)), *IMAGES)
    (relu,) = graph.graph.find_nodes(op="call_function", target=aten.relu.default)
    assert relu.args[0].target in (aten.max_pool2d.default, aten.avg_pool2d.default)


@pytest.mark.parametrize(
    "forward",
    [
        lambda _, x: F.adaptive_avg_pool2d(x, 1),
        lambda _, x: F.adaptive_avg_pool2d(x, (1, 1)).flatten(1),
        lambda _, x: x.mean((2, 3)),
        lambda _, x: x.mean((-1, -2)),
        lambda _, x: x.mean((3, 2), keepdim=True),
    ],
)
def test_global_pooling_is_a_mean_that_keeps_its_dimensions(forward: Callable) -> None:
    graph = traced(Net(forward), *IMAGES)
    (mean,) = [n for n in graph.graph.nodes if n.target is aten.mean.dim]
    assert sorted(a % 4 for a in mean.args[1]) == [2, 3]
    assert mean.args[2] is True
    assert operators(graph)["adaptive_avg_pool2d"] == 0
