"""Pools whose windows are not all alike, held against torch's own."""

import operator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from rewritten_graphs import operators, traced
from small_networks import Net, noise
from torch import fx

from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.passes.pools.uneven import AdaptiveMaximum, EvenAverage
from edgedl.compress.graph.values import record_value


def one_call(target: Any, height: int, width: int, *arguments: Any) -> fx.GraphModule:
    """Return a graph of one operator on [2, 3, H, W], with known shapes."""
    graph, x = fx.Graph(), torch.zeros(2, 3, height, width)
    source = graph.placeholder("x")
    node = graph.call_function(target, (source, *arguments))
    result = target(x, *arguments)
    record_value(source, x.to("meta"))
    one = isinstance(result, torch.Tensor)
    record_value(node, result.to("meta") if one else [y.to("meta") for y in result])
    if not isinstance(result, torch.Tensor):
        node = graph.call_function(operator.getitem, (node, 0))
        record_value(node, result[0].to("meta"))
    graph.output(node)
    return fx.GraphModule(torch.nn.Module(), graph)


def rewritten(step: Any, *call: Any) -> fx.GraphModule:
    graph = one_call(*call)
    step(graph)
    graph.recompile()
    x = noise(2, 3, *call[1:3], seed=9)
    torch.testing.assert_close(graph(x), one_call(*call)(x))
    return graph


@given(st.data())
def test_average_pools_of_any_size(data: Any) -> None:
    pair = st.tuples(st.integers(1, 4), st.integers(1, 4)).map(list)
    kernel, stride = data.draw(pair), data.draw(st.just([]) | pair)
    size = data.draw(st.tuples(st.integers(4, 9), st.integers(4, 9)))
    padding = [data.draw(st.integers(0, k // 2)) for k in kernel]
    include, ceil = data.draw(st.booleans()), data.draw(st.booleans())
    divisor = data.draw(st.none() | st.integers(1, 9))
    assume(ceil or divisor)
    options = (kernel, stride, padding, ceil, include, divisor)
    graph = rewritten(EvenAverage(), aten.avg_pool2d.default, *size, *options)
    (pool,) = graph.graph.find_nodes(op="call_function", target=aten.avg_pool2d.default)
    assert len(pool.args) == 3


@given(*[st.integers(1, 9)] * 2, *[st.integers(1, 5)] * 2)
def test_adaptive_maxima_of_any_size(height: int, width: int, rows: int, columns: int) -> None:
    call = (aten.adaptive_max_pool2d.default, height, width, [rows, columns])
    graph = rewritten(AdaptiveMaximum(), *call)
    assert not [n for n in graph.graph.nodes if "adaptive" in str(n.target)]


@pytest.mark.parametrize("size", [(8, 8), (6, 4)])
def test_windows_that_fit_need_nothing(size: tuple[int, int]) -> None:
    graph = traced(Net(lambda net, x: F.avg_pool2d(x, 2, ceil_mode=True)), 3, *size)
    assert operators(graph) == {"avg_pool2d": 1}
