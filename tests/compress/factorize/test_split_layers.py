"""Two layers of a rank compute what the one with truncated weights does."""

import operator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prunable_networks import NETWORKS, make
from small_networks import Net, noise, noise_task
from torch import Tensor, nn

from edgedl.compress.factorize.factorize import Factorize
from edgedl.compress.factorize.split_layers import can_split, split_layers
from edgedl.compress.factorize.two_factors import TwoFactors, largest_saving_rank
from edgedl.compress.graph.cuts.channel_groups import channel_groups
from edgedl.compress.graph.cuts.cut import cut_channels
from edgedl.compress.graph.cuts.mac_counter import MacCounter
from edgedl.compress.graph.cuts.tensor_axes import TensorAxes
from edgedl.compress.graph.layers import layer_name
from edgedl.compress.graph.operators.table import is_weighted
from edgedl.compress.graph.run import count_macs
from edgedl.compress.graph.stored_weights import stored_weights
from edgedl.compress.graph.trace import export_graph, trace
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.recipe.rebuild import rebuild
from edgedl.compress.state import begin
from edgedl.compress.subject.subject import Subject


@settings(deadline=None)
@given(
    st.sampled_from([(6, 4), (4, 9), (5, 3, 3, 3), (8, 2, 5)]),
    st.floats(0.05, 1),
    st.integers(0, 99),
)
def test_the_error_of_a_rank_is_the_energy_left_out(shape, energy: float, seed: int) -> None:
    weight = noise(*shape, seed=seed)
    matrix = weight.flatten(1).numpy().astype(np.float64)
    squares = np.linalg.svd(matrix, compute_uv=False) ** 2
    found = TwoFactors.of(weight)
    rank = found.rank(energy)
    first, second = found.factors(rank)
    product = second.flatten(1).numpy().astype(np.float64) @ first.flatten(1).numpy()
    error = ((product - matrix) ** 2).sum()
    assert error == pytest.approx(squares[rank:].sum(), abs=1e-4 * squares.sum())
    assert squares[:rank].sum() >= energy * squares.sum() * (1 - 1e-9)
    assert rank == 1 or squares[: rank - 1].sum() < energy * squares.sum()
    assert found.energy(rank) == pytest.approx(squares[:rank].sum() / squares.sum())


@given(st.integers(1, 40), st.integers(1, 40))
def test_the_largest_saving_rank_is_the_last_that_saves(outputs: int, inputs: int) -> None:
    saving = [r for r in range(40) if r * (outputs + inputs) < outputs * inputs]
    assert largest_saving_rank(torch.Size([outputs, inputs])) == max(saving)


def all_ranks(graph, share: float) -> dict[str, int]:
    """Return for every weight that can be split a share of its full rank."""
    weights = [w for w in stored_weights(graph) if can_split(w)]
    full = {w.path: min(len(w.value), w.value[0].numel()) for w in weights}
    return {path: max(1, round(share * rank)) for path, rank in full.items()}


@pytest.mark.parametrize("name", list(NETWORKS))
def test_full_rank_computes_the_same(name: str) -> None:
    module, inputs = make(name)
    graph = export_graph(module, inputs)
    split_layers(graph, all_ranks(graph, 1))
    torch.testing.assert_close(graph(*inputs), module(*inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["residual", "tied", "upsampled", "attention"])
def test_half_rank_computes_what_truncated_weights_compute(name: str) -> None:
    module, inputs = make(name)
    graph, truncated = (export_graph(module, inputs) for _ in range(2))
    ranks = all_ranks(graph, 0.5)
    assert ranks
    split_layers(graph, ranks)
    for path, rank in ranks.items():
        weight = operator.attrgetter(path)(truncated).detach()
        u, s, v = np.linalg.svd(weight.flatten(1).numpy(), full_matrices=False)
        weight.copy_(torch.tensor((u[:, :rank] * s[:rank]) @ v[:rank]).reshape(weight.shape))
    torch.testing.assert_close(graph(*inputs), truncated(*inputs), rtol=1e-3, atol=1e-4)
    assert (graph(*inputs) - module(*inputs)).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["residual", "tied", "own_attention"])
def test_a_split_network_can_be_traced_trained_and_cut(name: str) -> None:
    module, inputs = make(name)
    graph = export_graph(module, inputs)
    split_layers(graph, all_ranks(graph, 0.5))
    network = TracedNetwork(graph)
    traced = trace(network, inputs)
    layers = [layer_name(n) for n in traced.graph.nodes if is_weighted(n)]
    assert max(layers.count(layer) for layer in layers) >= 2
    network.train()
    network(*inputs).square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    axes = TensorAxes(export_graph(network.eval(), inputs))
    assert MacCounter(axes).count({}) == count_macs(graph, tuple(x[:1] for x in inputs))
    for node in axes.graph.graph.nodes:
        if node.op == "call_function":
            assert node.meta["val"].ndim == len(axes.of(node))
    groups = channel_groups(axes)
    kept = {g.axis: torch.arange(g.size // 2) for g in groups}
    assert any("_first" in place for g in groups for place, _ in g.places)
    cut = cut_channels(axes, kept)
    assert cut(*inputs).shape == module(*inputs).shape


def test_a_weight_with_several_readers_is_split_again() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        return m.head(m.twice(m.twice(x).relu()).relu())

    net = Net(forward, twice=nn.Linear(16, 16), head=nn.Linear(16, 4)).eval()
    state = begin(Subject("twice", net, noise_task((16,))))
    for _ in range(2):
        state = Factorize(energy=0.5, multiple=1).apply(state)
    weights = state.subject.module.tensors()
    again = rebuild(net, (noise(2, 16),), state.history, weights)
    x = noise(3, 16)
    torch.testing.assert_close(again(x), state.subject.module(x))


@pytest.mark.parametrize("padding", ["same", "valid", 1])
def test_strings_and_strides_of_a_convolution_go_to_the_first(padding: str | int) -> None:
    stride = 1 if padding == "same" else 2
    convolution = nn.Conv2d(4, 6, 3, stride, padding, dilation=2)
    net = Net(lambda m, x: m.inner(x).relu(), inner=convolution).eval()
    x = noise(2, 4, 9, 9)
    graph = export_graph(net, (x,))
    split_layers(graph, {"inner.weight": 6})
    torch.testing.assert_close(graph(x), net(x), rtol=1e-4, atol=1e-5)
    shapes = [tuple(p.shape) for name, p in graph.named_parameters() if "weight" in name]
    assert sorted(shapes) == [(6, 4, 3, 3), (6, 6, 1, 1)]
