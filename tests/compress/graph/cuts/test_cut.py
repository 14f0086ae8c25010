"""Cutting channels: the smaller network is the larger one with those channels silent."""

import operator
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from prunable_networks import NETWORKS, make
from small_networks import Net, noise
from torch import Tensor, fx, nn

from edgedl.compress.graph.axes import Axis, channels_of
from edgedl.compress.graph.cuts.channel_groups import ChannelGroup, channel_groups
from edgedl.compress.graph.cuts.cut import cut_channels
from edgedl.compress.graph.cuts.mac_counter import MacCounter
from edgedl.compress.graph.cuts.tensor_axes import TensorAxes
from edgedl.compress.graph.edit import copy_graph
from edgedl.compress.graph.run import count_macs
from edgedl.compress.graph.trace import export_graph, trace
from edgedl.compress.graph.traced_network import TracedNetwork

# Groups by the sizes that a person counts in ``prunable_networks``.
EXPECTED = {
    "residual": [8, 6],
    "concatenated": [4, 6],
    "depthwise": [8, 4, 6],
    "stretched": [8, 6],
    "tied": [8],
    # One layer makes queries, keys and values: the width of a head scales the scores, and stays.
    "attention": [16, 4, 32],
    "own_attention": [16, 4, 6, 6],
    "multihead": [24, 4],
    "weighing_heads": [24, 6],
    "shuffled": [4, 6, 6, 8],
    "rearranged": [8, 6, 12],
}


def test_every_name_of_a_shared_weight_is_cut() -> None:
    net = Net(
        lambda n, x: n.head(F.relu(n.b(F.relu(n.a(F.relu(n.stem(x)))))).mean((2, 3))),
        stem=nn.Conv2d(3, 8, 1),
        a=nn.Conv2d(8, 8, 3, padding=1),
        b=nn.Conv2d(8, 8, 3, padding=1),
        head=nn.Linear(8, 5),
    )
    net.b.weight = net.a.weight
    axes = TensorAxes(export_graph(net.eval(), (noise(2, 3, 6, 6),)))
    groups = channel_groups(axes)
    kept = {group.axis: torch.arange(group.size // 2) for group in groups}
    cut = cut_channels(axes, kept)
    named = dict(cut.named_parameters(remove_duplicate=False))
    assert named["a.weight"] is named["b.weight"]
    assert named["a.weight"].shape == (4, 4, 3, 3)


def silence(
    axes: TensorAxes, groups: list[ChannelGroup], kept: dict[Axis, Tensor]
) -> fx.GraphModule:
    """Return a copy whose removed channels are zero in every tensor."""
    copy = copy_graph(axes.graph)
    for group in groups:
        silent = torch.ones(group.size, dtype=torch.bool)
        silent[kept[group.axis]] = False
        for path, index in group.places:
            owners = channels_of(axes.tensors[path][index], group.axis)
            rows = (owners >= 0) & silent[owners.clamp_min(0)]
            tensor = operator.attrgetter(path)(copy)
            with torch.no_grad():
                tensor.movedim(index, 0)[rows] = 0
    return copy


def half(groups: list[ChannelGroup], seed: int) -> dict[Axis, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        g.axis: torch.randperm(g.size, generator=generator)[: g.size // 2].sort().values
        for g in groups
    }


@pytest.mark.parametrize("name", list(NETWORKS))
def test_a_cut_network_is_the_whole_one_with_silent_channels(name: str) -> None:
    module, inputs = make(name)
    graph = export_graph(module, inputs)
    axes = TensorAxes(graph)
    groups = channel_groups(axes)
    assert groups
    for seed in range(3):
        kept = half(groups, seed)
        cut = cut_channels(axes, kept)
        expected = silence(axes, groups, kept)(*inputs)
        torch.testing.assert_close(cut(*inputs), expected, rtol=1e-4, atol=1e-5)
        assert sum(p.numel() for p in cut.parameters()) < sum(p.numel() for p in graph.parameters())


@pytest.mark.parametrize("name", list(EXPECTED))
def test_the_groups_are_those_that_a_person_counts(name: str) -> None:
    module, inputs = make(name)
    groups = channel_groups(TensorAxes(export_graph(module, inputs)))
    assert sorted(g.size for g in groups) == sorted(EXPECTED[name])


@pytest.mark.parametrize("name", list(NETWORKS))
def test_a_cut_network_can_be_traced_trained_and_cut_again(name: str) -> None:
    module, inputs = make(name)
    graph = export_graph(module, inputs)
    axes = TensorAxes(graph)
    groups = channel_groups(axes)
    network = TracedNetwork(cut_channels(axes, half(groups, 0)))
    trace(network, inputs)
    network.train()
    network(*inputs).square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    axes = TensorAxes(export_graph(network, inputs))
    again = channel_groups(axes)
    assert [g.size for g in again] == [g.size // 2 for g in groups if g.size > 3]
    smaller = cut_channels(axes, {})
    torch.testing.assert_close(smaller(*inputs), network.eval()(*inputs))


@pytest.mark.parametrize("name", [n for n in NETWORKS if n != "upsampled"])
def test_macs_are_those_that_torch_counts(name: str) -> None:
    module, inputs = make(name)
    graph = export_graph(module, inputs)
    axes = TensorAxes(graph)
    groups = channel_groups(axes)
    kept = half(groups, 0)
    counter = MacCounter(axes)
    one = tuple(x[:1] for x in inputs)
    assert counter.count({}) == count_macs(graph, one)
    cut = cut_channels(axes, kept)
    assert counter.count({a: len(k) for a, k in kept.items()}) == count_macs(cut, one)


class Attends(nn.Module):
    """Puts the batch second on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.MultiheadAttention(32, 4, batch_first=True)
        self.wide, self.narrow = nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.inside(x, x, x, need_weights=False)[0]
        return self.narrow(self.wide(x).relu())


class Flattens(nn.Module):
    """Makes samples and places one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.conv(x).permute(0, 2, 3, 1).reshape(-1, 16)
        return self.linear(tokens).view(x.shape[0], -1)


class Steps(nn.Module):
    """Goes through time, before a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.steps, self.head = nn.LSTM(6, 12, 2, batch_first=True), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.steps(x)[0][:, -1])


@pytest.mark.parametrize(
    ("make_network", "shape"), [(Attends, (10, 32)), (Flattens, (3, 8, 8)), (Steps, (9, 6))]
)
def test_macs_wherever_the_batch_is(
    make_network: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    network, x = make_network().eval(), noise(2, *shape)
    counted = MacCounter(TensorAxes(export_graph(network, (x,)))).count({})
    assert counted == count_macs(network, (x[:1],))


def test_an_unknown_operator_keeps_its_channels_and_is_named() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = m.first(x).sort(1)[0]
        return m.head(m.second(y).relu().mean((2, 3)))

    net = Net(
        forward,
        first=nn.Conv2d(3, 8, 1),
        second=nn.Conv2d(8, 6, 1),
        head=nn.Linear(6, 5),
    ).eval()
    axes = TensorAxes(export_graph(net, (noise(2, 3, 8, 8),)))
    groups = channel_groups(axes)
    assert [g.size for g in groups] == [6]
    (reason,) = axes.unknown.values()
    assert "aten.sort" in reason


def test_the_batch_stays_free() -> None:
    module, inputs = make("grouped")
    graph = export_graph(module, inputs)
    axes = TensorAxes(graph)
    groups = channel_groups(axes)
    cut = cut_channels(axes, half(groups, 0))
    assert cut(noise(7, 3, 8, 8)).shape == (7, 5)
