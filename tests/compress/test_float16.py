"""Half precision inside, float32 outside."""

import numpy as np
import pytest
import torch
from small_networks import NETWORKS, Net, network, noise
from torch import nn

from edgedl.compress.artifacts import run_graph
from edgedl.compress.evaluate import as_tuple
from edgedl.compress.export.float16 import to_float16
from edgedl.compress.graph.trace import trace


@pytest.mark.parametrize("name", NETWORKS)
def test_values_are_half_precision_and_near_the_float32_ones(name: str) -> None:
    net = network(name)
    half = to_float16(net.graph)
    for a, b in zip(net.outputs(half), net.outputs(net.graph), strict=True):
        assert a.dtype == np.float32
        assert np.array_equal(a, a.astype(np.float16).astype(np.float32))
        assert not np.array_equal(a, b)
        np.testing.assert_allclose(a, b, rtol=0.01, atol=0.01)


def test_every_weight_and_inner_value_is_half() -> None:
    half = to_float16(network("operators").graph)
    assert {t.dtype for t in [*half.parameters(), *half.buffers()]} == {torch.float16}

    class Watch(torch.fx.Interpreter):
        seen: set[torch.dtype] = set()  # noqa: RUF012

        def call_function(self, target: object, args: tuple, kwargs: dict) -> object:
            self.seen |= {a.dtype for a in args if isinstance(a, torch.Tensor)}
            return super().call_function(target, args, kwargs)

    with torch.no_grad():
        Watch(half).run(*network("operators").inputs)
    # float32 enters the first cast only.
    casts = [n for n in half.graph.nodes if n.target is torch.ops.aten.to.dtype]
    assert [n.args[1] for n in casts] == [torch.float16, torch.float32]
    assert Watch.seen == {torch.float16, torch.float32}


def test_the_float_graph_stays_as_it_is() -> None:
    graph = network("joined").graph
    code = graph.code
    to_float16(graph)
    assert graph.code == code
    assert {p.dtype for p in graph.parameters()} == {torch.float32}


def test_an_input_that_is_an_output_and_an_output_used_twice() -> None:
    net = Net(lambda net, x: (x, net.fc(x), net.fc(x).relu()), fc=nn.Linear(3, 2))
    x = noise(4, 3)
    found = run_graph(to_float16(trace(net, (x,))), (x.numpy(),))
    with torch.no_grad():
        expected = as_tuple(net(x))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=0.01, atol=0.01)
