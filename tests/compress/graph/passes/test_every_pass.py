"""Every pass by itself: on a network that it rewrites, it rewrites it, and nothing else changes."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rewritten_graphs import assert_numerically_equal, traced
from small_networks import Net, noise, trained
from torch import Tensor, nn

from edgedl.compress.graph.edit import copy_graph
from edgedl.compress.graph.passes.canonicalize import ORDER
from edgedl.compress.graph.passes.graph_pass import MADE_BY, Pass
from edgedl.compress.graph.passes.transposed.join import JoinTransposed
from edgedl.compress.graph.trace import export_graph

# Name of a pass -> what it rewrites, the operators before and after.
ACTS: dict[str, tuple[Any, str, str]] = {
    "DropSideEffects": (lambda n, x: (x + 1).relu_(), "add relu_", "add relu"),
    "DropIdentities": (lambda n, x: F.dropout(x, 0.5, False) + 1, "dropout add", "add"),
    "JoinForms": (lambda n, x: torch.hstack([x, x]), "hstack", "cat"),
    "MoveForms": (lambda n, x: x.swapaxes(1, 2), "swapaxes", "transpose"),
    "ArithmeticForms": (lambda n, x: x.square(), "square", "mul"),
    "DropNeutral": (lambda n, x: x.sigmoid() * 1.0 + 0, "sigmoid mul add", "sigmoid"),
    "ActivationForms": (lambda n, x: F.threshold(x, 0, 0), "threshold", "relu"),
    "SoftmaxForms": (lambda n, x: x.softmax(1), "softmax", "permute softmax permute"),
    "PaddedMaximum": (
        lambda n, x: F.max_pool2d(F.pad(x, (0, 1, 1, 1), value=-torch.inf), 3),
        "pad max_pool2d",
        "slice cat max_pool2d",
    ),
    "PoolForms": (
        lambda n, x: F.avg_pool1d(x.flatten(2), 2),
        "flatten avg_pool1d",
        "flatten unsqueeze avg_pool2d squeeze",
    ),
    "MaximaAlone": (lambda n, x: x.max(1)[0], "max", "amax"),
    "StackedMaximum": (
        lambda n, x: torch.cat([x.unsqueeze(1), n.norm(x).unsqueeze(1)], 1).amax(1),
        "unsqueeze batch_norm unsqueeze cat amax",
        "batch_norm maximum",
    ),
    "EvenAverage": (
        lambda n, x: F.avg_pool2d(x, 3, 2, ceil_mode=True),
        "avg_pool2d",
        "constant_pad_nd avg_pool2d mul",
    ),
    "AdaptiveMaximum": (
        lambda n, x: F.adaptive_max_pool2d(x, 2),
        "adaptive_max_pool2d",
        "max_pool2d",
    ),
    "CellsAsLayers": (
        lambda n, x: n.cell(x[:, 0, 0], x[:, 1, 0]),
        "select select select select gru_cell",
        "select select select select unsqueeze unsqueeze gru squeeze",
    ),
    "SeriesAsPictures": (
        lambda n, x: F.relu(n.series(x.flatten(2))),
        "flatten conv_transpose1d relu",
        "flatten unsqueeze unsqueeze conv_transpose2d relu squeeze",
    ),
    "OpenEinsum": (
        lambda n, x: torch.einsum("nchw,ncvw->nchv", x, x),
        "einsum",
        "permute matmul",
    ),
    "LinearOfStored": (lambda n, x: x @ n.square, "matmul", "linear"),
    "ScaleInProducer": (
        lambda n, x: (n.linear(x) @ x) * 0.5,
        "linear matmul mul",
        "linear matmul",
    ),
    "StoreComputed": (
        lambda n, x: F.linear(x, n.square.exp()),
        "exp linear",
        "linear",
    ),
    "FoldBatchNorm": (lambda n, x: n.norm(n.conv(x)), "conv2d batch_norm", "conv2d"),
    "NormalisationAsDepthwise": (lambda n, x: (x + n.row) * n.row, "add mul", "conv2d"),
    "SumBeforeProduct": (lambda n, x: x * 2 + 1, "mul add", "add mul"),
    "FoldAffine": (lambda n, x: n.conv(x) * n.row + 2, "conv2d mul add", "conv2d"),
    "FoldFactor": (lambda n, x: n.conv(x).relu() * 2.0, "conv2d relu mul", "conv2d relu"),
    "OpenSilu": (lambda n, x: F.silu(x), "silu", "sigmoid mul"),
    "OpenAttention": (
        lambda n, x: F.scaled_dot_product_attention(n.linear(x), x, x),
        "linear scaled_dot_product_attention",
        "linear transpose matmul softmax matmul",
    ),
    "OpenMaskedScores": (
        lambda n, x: x.masked_fill(n.mask, -torch.inf).softmax(-1),
        "masked_fill softmax",
        "where add softmax",
    ),
    "OpenLists": (lambda n, x: x.split([1, 3], 1)[1], "split_with_sizes", "slice"),
    "GlobalPoolAsMean": (lambda n, x: x.mean((2, 3)), "mean", "mean flatten"),
    "FoldIntoNextLayer": (lambda n, x: n.valid(n.scale(x)), "conv2d conv2d", "conv2d"),
    "ActivateBeforePool": (
        lambda n, x: F.max_pool2d(n.conv(x), 2).relu(),
        "conv2d max_pool2d relu",
        "conv2d relu max_pool2d",
    ),
    "OpenTransposed": (
        lambda n, x: n.up(x).relu(),
        "conv_transpose2d relu",
        "conv2d relu pixel_shuffle",
    ),
    "CropTransposed": (
        lambda n, x: n.cropped(x),
        "conv_transpose2d",
        "conv_transpose2d slice slice",
    ),
}
STEPS = [step for passes in ORDER for step in passes]


def network(forward: Any) -> Net:
    torch.manual_seed(2)
    scale = nn.Conv2d(4, 4, 1, groups=4)
    nn.init.uniform_(scale.weight, 1.0, 1.5)
    return Net(
        forward,
        scale=scale,
        conv=nn.Conv2d(4, 4, 3, padding=1),
        valid=nn.Conv2d(4, 4, 3),
        norm=trained(nn.BatchNorm2d(4)),
        linear=nn.Linear(6, 6),
        series=nn.ConvTranspose1d(4, 3, 3),
        cell=nn.GRUCell(6, 6),
        up=nn.ConvTranspose2d(4, 3, 2, 2),
        cropped=nn.ConvTranspose2d(4, 3, 2, 3, padding=2, dilation=3),
        square=nn.Parameter(noise(6, 6, seed=4)),
        row=nn.Parameter(torch.rand(4, 1, 1) + 0.5),
        mask=nn.Buffer(torch.eye(6).bool()),
    ).eval()


def called(graph: Any) -> str:
    """The operators of a graph in their order."""
    targets = [n.target for n in graph.graph.nodes]
    return " ".join(
        t.overloadpacket.__name__ for t in targets if isinstance(t, torch._ops.OpOverload)
    )


def test_every_pass_of_the_list_has_a_case() -> None:
    assert [step.name for step in STEPS] == list(ACTS)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_pass_by_itself(step: Pass) -> None:
    forward, before, after = ACTS[step.name]
    x = noise(2, 4, 6, 6)
    exported = export_graph(network(forward), (x,))
    assert called(exported) == before
    graph = copy_graph(exported)
    step(graph)
    graph.recompile()
    assert called(graph) == after
    assert_numerically_equal(exported, graph, noise(3, 4, 6, 6, seed=9))
    assert not step.ensures(graph)
    known = {n.name: n.target for n in exported.graph.nodes}
    for node in graph.graph.nodes:
        if known.get(node.name) != node.target:
            assert node.meta[MADE_BY] == step.name


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_call_may_name_its_arguments(step: Pass) -> None:
    forward, _, after = ACTS[step.name]
    exported = export_graph(network(forward), (noise(2, 4, 6, 6),))
    graph = copy_graph(exported)
    for node in graph.graph.nodes:
        if schema := getattr(node.target, "_schema", None):
            names = [a.name for a in schema.arguments]
            node.kwargs = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
            node.args = ()
    step(graph)
    graph.recompile()
    assert called(graph) == after
    assert_numerically_equal(exported, graph, noise(3, 4, 6, 6, seed=9))


def test_what_was_opened_is_joined() -> None:
    x: Tensor = noise(3, 4, 6, 6)
    opened = traced(network(ACTS["OpenTransposed"][0]), 4, 6, 6)
    joined = copy_graph(opened)
    JoinTransposed()(joined)
    joined.recompile()
    assert called(joined) == "conv_transpose2d relu"
    assert_numerically_equal(opened, joined, x)
