"""Products in any form: linear layers where a matrix is stored, matmuls where none is."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from rewritten_graphs import traced
from small_networks import Net, noise
from torch import Tensor, fx, nn

from edgedl.compress.graph.edit import get_tensor
from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.operators.table import is_quantizable
from edgedl.compress.graph.trace import trace

TOKENS = (3, 5, 8)
MATRIX = nn.Parameter(noise(8, 6, seed=2))
TENSOR = nn.Parameter(noise(8, 2, 3, seed=3))


def products(function: Callable, *shape: int, **layers: nn.Module | nn.Parameter) -> fx.GraphModule:
    return traced(Net(function, **layers), *shape[1:])


def called(graph: fx.GraphModule) -> list:
    return [n.target for n in graph.graph.nodes if n.op == "call_function"]


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda net, x: x @ net.w, TOKENS),
        (lambda net, x: torch.matmul(x, net.w) + 1, (3, 8)),
        (lambda net, x: torch.mm(x, net.w), (3, 8)),
        (lambda net, x: torch.addmm(net.w[0], x, net.w), (3, 8)),
        (lambda net, x: x @ net.w.exp(), TOKENS),
        (lambda net, x: torch.einsum("btc,co->bto", x, net.w), TOKENS),
        (lambda net, x: torch.einsum("co,btc->bot", net.w, x), TOKENS),
        (lambda net, x: torch.einsum("btc, co -> obt", x, net.w).transpose(0, 1), TOKENS),
        (lambda net, x: torch.einsum("btd,dhk->bthk", x, net.t), TOKENS),
        (lambda net, x: torch.einsum("bthk,dhk->btd", x.unflatten(2, (2, 4)), net.s), TOKENS),
        (lambda net, x: torch.einsum("btc,c->bt", x, net.w[:, 0]), TOKENS),
    ],
)
def test_a_product_with_a_stored_tensor_is_a_linear_layer(function: Callable, shape: tuple) -> None:
    s = nn.Parameter(noise(7, 2, 4, seed=4))
    graph = products(function, *shape, w=MATRIX, t=TENSOR, s=s)
    (layer,) = graph.graph.find_nodes(op="call_function", target=aten.linear.default)
    assert layer.args[1].op == "get_attr"
    assert all(is_quantizable(n) for n in graph.graph.nodes if n.op == "call_function")


@pytest.mark.parametrize(
    "function",
    [
        lambda net, x: net.w.t() @ x.transpose(1, 2),
        lambda net, x: torch.addmm(net.w[0], x[:, 0], net.w, alpha=2),
        lambda net, x: torch.addmm(x[:, 1, :6], x[:, 0], net.w),
        lambda net, x: torch.einsum("bgi,gio->bgo", x.unflatten(2, (4, 2))[:, 0], net.grouped),
        lambda net, x: torch.einsum("bti,btj->btij", x, x),
        lambda net, x: torch.einsum("btt->bt", x[:, :, :5]),
        lambda net, x: torch.einsum("...i,io->...o", x, net.w),
    ],
)
def test_what_is_no_such_product_stays(function: Callable) -> None:
    grouped = nn.Parameter(noise(4, 2, 3, seed=5))
    graph = products(function, *TOKENS, w=MATRIX, grouped=grouped)
    assert aten.linear.default not in called(graph)


@pytest.mark.parametrize(
    "equation",
    ["bqd,bkd->bqk", "bqd,bkd->bkq", "bqd,bkd->b", "bqd,bqk->bdk", "bqd,bqk->bkd", "bqd,bkd->bk"],
)
def test_an_einsum_of_two_activations_is_a_matmul(equation: str) -> None:
    graph = products(lambda net, x: torch.einsum(equation, x, 2 * x.flip(1)), *TOKENS)
    known = {aten.matmul.default, aten.einsum.default}
    # "bk" alone sums over q on one side only, "b" over all: those are no products.
    is_product = equation not in ("bqd,bkd->b", "bqd,bkd->bk")
    expected = aten.matmul.default if is_product else aten.einsum.default
    assert known & {*called(graph)} == {expected}


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bqhd,bkhd->bhqk", ((5, 2, 4), (6, 2, 4))),
        ("bhqk,bkhd->bqhd", ((2, 5, 6), (6, 2, 4))),
        ("bchw,bcvw->bhv", ((3, 4, 5), (3, 6, 5))),
        ("bxyc,bzc->bxyz", ((3, 4, 5), (6, 5))),
        ("btc,bc->bt", ((3, 4), (4,))),
        ("bc,btc->bt", ((4,), (3, 4))),
    ],
)
def test_axes_are_merged_and_parted(equation: str, shapes: tuple) -> None:
    sizes = [math.prod(shape) for shape in shapes]

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        parts = x.split(sizes, 1)
        return torch.einsum(
            equation, *(p.unflatten(1, s) for p, s in zip(parts, shapes, strict=True))
        )

    graph = products(forward, 3, sum(sizes))
    # A product of a vector per sample has nothing left of the first operand.
    if equation == "bc,btc->bt":
        assert aten.einsum.default in called(graph)
    else:
        assert aten.matmul.default in called(graph)
        assert all(is_quantizable(n) for n in graph.graph.nodes if n.op == "call_function")


def test_a_weight_turned_and_turned_back_is_one_tensor() -> None:
    table = nn.Embedding(9, 4)
    net = Net(lambda net, ids: net.table(ids) @ net.table.weight.t(), table=table)
    graph = trace(net.eval(), (torch.tensor([[1, 2], [3, 8]]),))
    (layer,) = graph.graph.find_nodes(op="call_function", target=aten.linear.default)
    assert layer.args[1].target == "table.weight"


@pytest.mark.parametrize(
    "layer",
    [
        nn.utils.parametrizations.weight_norm(nn.Conv1d(8, 4, 3)),
        nn.utils.parametrizations.spectral_norm(nn.Conv1d(8, 4, 3)),
        nn.utils.parametrizations.weight_norm(nn.ConvTranspose2d(8, 4, 3, 2), dim=1),
    ],
)
def test_a_weight_that_is_normalized_at_every_call_is_stored(layer: nn.Module) -> None:
    shape = (3, 8, 5, 5) if isinstance(layer, nn.ConvTranspose2d) else (3, 8, 12)
    graph = products(lambda net, x: net.layer(x), *shape, layer=layer.eval())
    constants = [n for n in graph.graph.nodes if n.op == "get_attr"]
    assert len(constants) == 2
    assert all(is_quantizable(n) for n in graph.graph.nodes if n.op == "call_function")


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.relu(self.encode(x)), self.encode.weight.t())


def test_a_transposed_weight_is_stored_apart() -> None:
    net = Tied().eval()
    graph = trace(net, (noise(*TOKENS),))
    first, second = graph.graph.find_nodes(op="call_function", target=aten.linear.default)
    weights = [get_tensor(graph, str(n.args[1].target)) for n in (first, second)]
    torch.testing.assert_close(weights[0], weights[1].t())


@pytest.mark.parametrize(
    ("scores", "folded"),
    [
        (lambda q, k: q @ k / 2, True),
        (lambda q, k: (q * 0.5) @ k, True),
        (lambda q, k: q @ (k / 2), True),
        (lambda q, k: (q @ k) / 2 + q @ k, False),
        (lambda q, k: (q @ k).relu() / 2, False),
        (lambda q, k: (lambda h: h @ h / 2)(q[:, :4, :4]) + k[:, :4, :4], False),
        (lambda q, k: q.sigmoid() / 2 + k.mT, False),
    ],
)
def test_the_scale_of_scores_goes_into_a_layer(scores: Callable, folded: bool) -> None:
    graph = products(
        lambda net, x: scores(net.q(x), net.k(x).mT), *TOKENS, q=nn.Linear(8, 8), k=nn.Linear(8, 8)
    )
    assert (aten.mul.Tensor not in called(graph)) == folded
