"""Rewrites of composite operators: what they become, and that they compute the same."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rewritten_graphs import assert_numerically_equal, operators, traced
from small_networks import Net, noise
from torch import Tensor, nn

from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.operators.table import moves_values, row_of
from edgedl.compress.graph.trace import trace


def targets(module: nn.Module, *inputs: Tensor) -> list[Any]:
    """Trace (which compares graph and module) and return what the graph calls."""
    return [n.target for n in trace(module.eval(), inputs).graph.nodes if n.op == "call_function"]


class Attention(nn.Module):
    def __init__(self, shared: bool = False, **options: Any) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.shared, self.options = shared, options

    def forward(self, x: Tensor) -> Tensor:
        query = self.q(x)
        key = query if self.shared else self.k(x)
        return F.scaled_dot_product_attention(query, key, self.v(x), **self.options)


ATTENTION = aten.scaled_dot_product_attention.default


def test_attention_is_two_products_around_a_softmax() -> None:
    found = targets(Attention(), noise(3, 5, 8))
    assert found.count(aten.matmul.default) == 2
    assert found.count(aten.softmax.int) == 1
    assert ATTENTION not in found
    # The scale went into the query's weight.
    assert aten.mul.Tensor not in found


@pytest.mark.parametrize("scale", [None, 0.25])
def test_a_query_that_others_read_is_scaled_by_itself(scale: float | None) -> None:
    found = targets(Attention(shared=True, scale=scale), noise(3, 5, 8))
    assert found.count(aten.mul.Tensor) == 1
    assert ATTENTION not in found


@pytest.mark.parametrize(
    "options",
    [
        {"is_causal": True},
        {"attn_mask": torch.ones(5, 5).tril().bool()},
        {"attn_mask": torch.ones(5, 5).tril()},
    ],
)
def test_a_mask_is_added_before_the_softmax(options: dict[str, Any]) -> None:
    found = targets(Attention(**options), noise(3, 5, 8))
    assert ATTENTION not in found
    assert found[found.index(aten.softmax.int) - 1] is aten.add.Tensor


CAUSAL = torch.ones(5, 5).tril() == 0
HIDE = {
    "filled": lambda scores: scores.masked_fill(CAUSAL, float("-inf")),
    "filled with a tensor": lambda scores: scores.masked_fill(CAUSAL, torch.tensor(-1e9)),
    "chosen": lambda scores: torch.where(CAUSAL, -1e4, scores),
    "kept": lambda scores: torch.where(~CAUSAL, scores, float("-inf")),
    "kept, of a tensor": lambda scores: torch.where(~CAUSAL, scores, torch.tensor(-1e9)),
}


@pytest.mark.parametrize("hide", HIDE.values(), ids=HIDE)
def test_hidden_scores_have_a_mask_added(hide: Callable) -> None:
    net = Net(lambda net, x: hide(net.q(x) @ x.mT).softmax(-1), q=nn.Linear(8, 8))
    graph = trace(net.eval(), (noise(3, 5, 8),))
    found = [n.target for n in graph.graph.nodes if n.op == "call_function"]
    assert found[-2:] == [aten.add.Tensor, aten.softmax.int]
    x = noise(4, 5, 8, seed=1)
    assert_numerically_equal(net, graph, x)
    assert torch.isfinite(graph(x)).all()


@pytest.mark.parametrize(
    "hide",
    [
        lambda scores: scores.masked_fill(CAUSAL, -3.0),
        lambda scores: torch.where(CAUSAL, scores, 0.5 * scores),
        lambda scores: scores.masked_fill(CAUSAL, -1e9).relu(),
    ],
)
def test_what_is_chosen_for_another_reason_stays(hide: Callable) -> None:
    net = Net(lambda net, x: hide(net.q(x) @ x.mT).softmax(-1), q=nn.Linear(8, 8))
    graph = trace(net.eval(), (noise(3, 5, 8),))
    assert any(row_of(n).masks for n in graph.graph.nodes)


@pytest.mark.parametrize(
    "split",
    [
        lambda x: x.split(2, 1),
        lambda x: x.split([1, 4], 1),
        lambda x: x.chunk(3, 1),
        lambda x: x.chunk(2, -1),
    ],
)
def test_a_split_is_slices(split: Any) -> None:
    net = Net(lambda net, x: torch.cat([*reversed(split(x)), split(x)[0]], 1))
    if split(noise(2, 5, 4))[0].shape[2] != 4:
        net = Net(lambda net, x: torch.cat(tuple(reversed(split(x))), -1))
    found = targets(net, noise(2, 5, 4))
    assert aten.slice.Tensor in found
    assert not {aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default} & {*found}


@pytest.mark.parametrize("axis", [1, -1])
def test_what_is_unbound_is_on_one_grid(axis: int) -> None:
    """Query, key and value of one linear layer: rounded once."""
    net = Net(lambda net, x: torch.cat([2 * x.unbind(axis)[0], x.unbind(axis)[2]], 1))
    x = noise(4, 3, 5, 3)
    graph = trace(net, (x,))
    found = [n for n in graph.graph.nodes if n.target is aten.select.int]
    assert len(found) == 2
    assert all(moves_values(n) for n in found)
    assert not graph.graph.find_nodes(op="call_function", target=aten.unbind.int)
    assert_numerically_equal(net, graph, x)


def test_the_shapes_of_new_operators_are_known() -> None:
    graph = trace(Attention().eval(), (noise(3, 5, 8),))
    called = [n for n in graph.graph.nodes if n.op == "call_function"]
    assert all(isinstance(n.meta["val"], Tensor) for n in called)


@pytest.mark.parametrize("inplace", [False, True])
def test_silu_is_opened_into_its_gate(inplace: bool) -> None:
    net = Net(lambda net, x: F.silu(net.conv(x), inplace=inplace) * 2.0, conv=nn.Conv2d(3, 4, 1))
    assert operators(traced(net, 3, 5, 5)) == {"conv2d": 1, "sigmoid": 1, "mul": 2}
