"""Tracing: the graph is the module, the module stays as it is, and refusals are one line."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_networks import NETWORKS, Net, TwoInputs, network, noise
from tiny import make_net
from torch import Tensor, nn

from edgedl.compress.graph.edit import input_nodes, output_nodes
from edgedl.compress.graph.trace import TraceError, trace
from edgedl.compress.subject.outputs import as_tuple


@pytest.mark.parametrize("name", NETWORKS)
def test_graph_computes_what_the_module_computes(name: str) -> None:
    net = network(name)
    fresh = tuple(noise(9, *x.shape[1:], seed=90 + i) for i, x in enumerate(net.inputs))
    with torch.no_grad():
        expected, found = as_tuple(net.module(*fresh)), as_tuple(net.graph(*fresh))
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)


def test_module_stays_untouched_and_shares_no_memory_with_the_graph() -> None:
    net = make_net()
    before = copy.deepcopy(net.state_dict())
    graph = trace(net, (noise(2, 3, 12, 12),))
    with torch.no_grad():
        for tensor in [*graph.parameters(), *graph.buffers()]:
            tensor.fill_(7.0)
    after = net.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_batch_size_is_free(batch: int) -> None:
    net = make_net()
    graph = trace(net, (noise(2, 3, 12, 12),))
    x = noise(batch, 3, 12, 12, seed=3)
    torch.testing.assert_close(graph(x), net(x), rtol=1e-4, atol=1e-5)


def test_one_example_is_enough() -> None:
    graph = trace(nn.Linear(3, 2).eval(), (noise(1, 3),))
    assert graph(noise(5, 3)).shape == (5, 2)


def test_inputs_and_outputs_keep_their_order() -> None:
    net = TwoInputs(lambda _, x, y: (y - x, x * 2.0))
    graph = trace(net.eval(), (torch.full((2, 3), 1.0), torch.full((2, 3), 10.0)))
    assert [n.name for n in input_nodes(graph)] == ["x", "y"]
    assert len(output_nodes(graph)) == 2
    first, second = graph(torch.full((4, 3), 1.0), torch.full((4, 3), 10.0))
    assert (first == 9.0).all()
    assert (second == 2.0).all()


class DataDependent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else 2 * x


class Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("the first line\nand a second one")


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (DataDependent(), "cannot trace DataDependent"),
        (Broken(), r"cannot trace Broken in Broken \(test_trace.py, line \d+\): the first line;"),
        (Net(lambda _, x: x.reshape(2, 3)), "must work for any batch size"),
    ],
)
def test_what_cannot_be_exported_is_one_readable_line(module: nn.Module, reason: str) -> None:
    with pytest.raises(TraceError, match=reason) as caught:
        trace(module.eval(), (noise(2, 3),))
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda _, x: x + torch.rand_like(x), "differently the second time"),
        (lambda _, x: F.dropout(x, 0.5, training=True), "differently the second time"),
        (lambda _, x: torch.log(x - 1e9), "output 0 of the module is not finite"),
        (lambda _, x: (x, x / 0.0), "output 1 of the module is not finite"),
        (lambda _, x: x.double(), "is torch.float64: it must be float32"),
    ],
)
def test_graphs_that_are_not_the_module_are_refused(
    forward: Callable[..., Any], reason: str
) -> None:
    with pytest.raises(TraceError, match=reason) as caught:
        trace(Net(forward).eval(), (noise(2, 3),))
    assert len(str(caught.value).splitlines()) == 1


def test_training_behaviour_is_switched_off() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.9)).train()
    graph = trace(module, (noise(4, 3),))
    x = noise(6, 3, seed=1)
    torch.testing.assert_close(graph(x), module.eval()(x))


def test_ids_can_be_inputs() -> None:
    embedding = nn.Embedding(7, 4).eval()
    ids = torch.randint(7, (2, 3))
    graph = trace(embedding, (ids,))
    torch.testing.assert_close(graph(ids), embedding(ids))
    with pytest.raises(TraceError, match="it can be float32, int64, int32"):
        trace(Net(lambda _, x: x.float()), (ids.to(torch.uint8),))


class Branches(nn.Module):
    def forward(net, x: Tensor) -> Tensor:  # noqa: N805
        return x * 2 if x.sum() > 0 else x


def test_the_module_and_line_that_cannot_be_traced_are_named() -> None:
    with pytest.raises(TraceError, match=r"in Branches \(test_trace.py, line \d+\)"):
        trace(nn.Sequential(nn.Linear(3, 3), Branches()).eval(), (noise(2, 3),))


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: x.argmax(1),
        lambda net, x: x > 0,
        lambda net, x: (x.relu(), x.topk(2, 1)[1]),
        lambda net, x: {"best": x.argmax(1), "any": (x > 1).any(1)},
    ],
)
def test_integers_and_booleans_become_floats(forward: Any) -> None:
    x = noise(4, 6)
    net = Net(forward)
    graph = trace(net, (x,))
    for found, wanted in zip(as_tuple(graph(x)), as_tuple(net(x)), strict=True):
        assert found.dtype == torch.float32
        assert torch.equal(found, wanted)


def test_an_empty_output_is_refused() -> None:
    with pytest.raises(TraceError, match=r"is empty: .* leave it out"):
        trace(Net(lambda net, x: (x.relu(), x[:, :0])), (noise(4, 6),))


@pytest.mark.slow
def test_a_product_of_activations_at_the_end_of_a_deep_network() -> None:
    layers = nn.Sequential(*(nn.Tanh() for _ in range(400)))
    deep = Net(lambda net, x: (y := net.layers(x)) @ y.transpose(1, 2), layers=layers).eval()
    graph = trace(deep, (x := noise(2, 3, 4),))
    torch.testing.assert_close(graph(x), deep(x))
