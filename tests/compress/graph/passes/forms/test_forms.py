"""Every operator under one name: what it becomes, that it computes the same, and in integers."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from rewritten_graphs import traced
from small_networks import Net
from torch import Tensor

from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.operators.table import is_quantizable
from edgedl.compress.graph.trace import trace

MAP = (3, 4, 6, 6)
SERIES = (3, 4, 12)


def called(function: Callable, *shape: int) -> tuple[list, bool]:
    """Trace a function (trace compares the graph with it); say what is called, and if in int8."""
    graph = traced(Net(lambda net, x: function(x)), *shape[1:])
    nodes = [n for n in graph.graph.nodes if n.op == "call_function"]
    return [n.target for n in nodes], all(map(is_quantizable, nodes))


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda x: torch.concat([x, 2 * x], 1), MAP),
        (lambda x: torch.concatenate([x, 2 * x], 2), MAP),
        (lambda x: torch.hstack([x, 2 * x]), MAP),
        (lambda x: torch.stack([x, 2 * x], -1), MAP),
        (lambda x: torch.stack([x, 2 * x], 1), MAP),
        (lambda x: x.roll(1, 2), MAP),
        (lambda x: x.roll((-2, 7), (2, 3)), MAP),
        (lambda x: x.swapaxes(1, -1), MAP),
        (lambda x: x.swapdims(1, 2), MAP),
        (lambda x: x.mT, MAP),
        (lambda x: x.movedim(1, -1), MAP),
        (lambda x: x.movedim((1, 2), (3, 1)), MAP),
        (lambda x: x.moveaxis(-1, 1), MAP),
        (lambda x: x.narrow(2, 1, 3), MAP),
        (lambda x: x.unflatten(1, (2, 2)), MAP),
        (lambda x: x.flip(2), MAP),
        (lambda x: x.repeat(1, 2, 1, 3), MAP),
        (lambda x: x.tile(2, 1), MAP),
        (lambda x: x.repeat_interleave(3, 2), MAP),
        (lambda x: x[:, [2, 0]], MAP),
        (lambda x: x[:, :, [-1, 0, 3]], MAP),
        (lambda x: x[:, :, torch.tensor([1, 1, 3])], MAP),
        (lambda x: x.index_select(3, torch.tensor([5, 0])), MAP),
        (lambda x: x.mean((2, 3), keepdim=True).squeeze(), MAP),
        (lambda x: x.tensor_split(3, 2)[1], MAP),
        (lambda x: torch.einsum("bchw->bhwc", x), MAP),
        (lambda x: x.clamp_min(0), MAP),
        (lambda x: x.clamp_max(0.5), MAP),
        (lambda x: F.threshold(x, 0, 0), MAP),
        (lambda x: x.square(), MAP),
        (lambda x: x**2, MAP),
        (lambda x: -x, MAP),
        (lambda x: x / 3, MAP),
        (lambda x: 1 - x, MAP),
        (lambda x: torch.add(x, x.sigmoid(), alpha=3), MAP),
        (lambda x: torch.sub(x, x.sigmoid(), alpha=0.5), MAP),
        (lambda x: F.glu(x, 1), MAP),
        (lambda x: F.glu(x), MAP),
        (lambda x: x.max(1)[0], MAP),
        (lambda x: x.max(2, keepdim=True).values, MAP),
        (lambda x: F.adaptive_max_pool2d(x, 1), MAP),
        (lambda x: F.avg_pool1d(x, 3), SERIES),
        (lambda x: F.avg_pool1d(x, 3, 1, 1), SERIES),
        (lambda x: F.adaptive_avg_pool1d(x, 1), SERIES),
        (lambda x: F.dropout2d(x, training=False) + 1, MAP),
        (lambda x: F.alpha_dropout(x, training=False) + 1, MAP),
        (lambda x: x.float().to(torch.float32) + 1, MAP),
        (lambda x: x.detach() + 1, MAP),
    ],
)
def test_what_has_integer_kernels_under_another_name(function: Callable, shape: tuple) -> None:
    _, in_integers = called(function, *shape)
    assert in_integers


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x**3,
        lambda x: F.threshold(x, 0.1, 0),
        lambda x: torch.cat(x.max(1), 1),
        lambda x: x / (1 + x.abs()),
        lambda x: x[:, [1, 0], [2, 3]],
        lambda x: torch.rsub(x, 1, alpha=2),
    ],
)
def test_what_only_looks_alike_stays(function: Callable) -> None:
    _, in_integers = called(function, *MAP)
    assert not in_integers


def _late_reader(x: Tensor) -> Tensor:
    y = x + 1
    z = y.mul_(2)
    return y + z


def _early_reader(x: Tensor) -> Tensor:
    y = x + 1
    before = y * 3
    y.mul_(2)
    return before + y


def _twice(x: Tensor) -> Tensor:
    y = x + 1
    y += x
    y.relu_()
    return y / 2 + y


@pytest.mark.parametrize("function", [_late_reader, _early_reader, _twice])
def test_what_works_in_place_makes_a_new_tensor(function: Callable) -> None:
    targets, in_integers = called(function, *MAP)
    assert in_integers
    assert not [t for t in targets if t._schema.is_mutable]


def _slice(x: Tensor) -> Tensor:
    y = x + 1
    y[:, :2] *= 3
    return y


def _assigned(x: Tensor) -> Tensor:
    y = x + 1
    y[:, 1:3] = x[:, 1:3].sigmoid()
    return y * 2


def _old_view(x: Tensor) -> Tensor:
    y = x + 1
    rows = y.flatten(2)
    y.mul_(2)
    return rows + 1


@pytest.mark.parametrize("function", [_slice, _assigned, _old_view])
def test_what_changes_memory_that_others_read_goes_on_doing_so(function: Callable) -> None:
    called(function, *MAP)


def test_whole_numbers_are_not_multiplied_by_minus_one() -> None:
    net = Net(lambda net, ids: net.table(-ids + 4), table=torch.nn.Embedding(5, 3))
    graph = trace(net.eval(), (torch.tensor([[0, 1], [2, 4]]),))
    assert graph.graph.find_nodes(op="call_function", target=aten.neg.default)
