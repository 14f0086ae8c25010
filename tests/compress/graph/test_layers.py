"""Operators are found by the names of the modules they come from."""

import pytest
import torch
import torch.nn.functional as F
from small_networks import Net, trained
from torch import nn

from edgedl.compress.graph.layers import find_layers, layer_name
from edgedl.compress.graph.trace import trace
from edgedl.runtime.errors import BadInputError


@pytest.fixture(scope="module")
def nodes():
    def forward(net, x):
        x = net.blocks(net.stem(x))
        return net.fc(F.relu(x).mean((2, 3)))

    block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), trained(nn.BatchNorm2d(4)), nn.ReLU())
    other = nn.Sequential(trained(nn.BatchNorm2d(4)), nn.Conv2d(4, 4, 3, padding=1))
    net = Net(
        forward, stem=nn.Conv2d(3, 4, 3), blocks=nn.Sequential(block, other), fc=nn.Linear(4, 2)
    )
    graph = trace(net.eval(), (torch.randn(2, 3, 8, 8),))
    return [n for n in graph.graph.nodes if n.op == "call_function"]


def names(nodes, *patterns):
    return sorted(layer_name(n) for n in find_layers(nodes, patterns))


def test_every_operator_has_the_path_of_its_module(nodes):
    found = [(str(n.target).split(".")[1], layer_name(n)) for n in nodes]
    assert found == [
        ("conv2d", "stem"),
        ("conv2d", "blocks.0.0"),
        ("relu", "blocks.0.2"),
        ("conv2d", "blocks.1.0"),
        ("conv2d", "blocks.1.1"),
        ("relu", ""),
        ("mean", ""),
        ("flatten", ""),
        ("linear", "fc"),
    ]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (("stem",), ["stem"]),
        (("blocks.0",), ["blocks.0.0", "blocks.0.2"]),
        (("blocks",), ["blocks.0.0", "blocks.0.2", "blocks.1.0", "blocks.1.1"]),
        (("*.1",), ["blocks.1.0", "blocks.1.1"]),
        (("blocks.*.0",), ["blocks.0.0", "blocks.1.0"]),
        (("linear", "stem"), ["fc", "stem"]),
        ((), []),
    ],
)
def test_patterns(nodes, patterns, expected):
    assert names(nodes, *patterns) == expected


@pytest.mark.parametrize("pattern", ["block", "blocks.0.00", "", "Stem", "bl"])
def test_a_pattern_without_a_match_is_refused(nodes, pattern):
    with pytest.raises(BadInputError, match=f"no layer is called '{pattern}'.* the nearest names"):
        find_layers(nodes, ["stem", pattern])


def test_the_nearest_names_are_in_the_message(nodes):
    with pytest.raises(BadInputError, match=r"blocks\.0\.0"):
        find_layers(nodes, ["blocks.0.00"])


def test_a_network_without_layers():
    with pytest.raises(BadInputError, match="the network has none"):
        find_layers([], ["fc"])
