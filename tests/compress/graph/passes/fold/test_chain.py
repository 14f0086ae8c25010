"""Sums and products that look like a normalisation and are none, or one that cannot be moved."""

from collections.abc import Callable

import pytest
import torch
from rewritten_graphs import assert_numerically_equal
from small_networks import Net, noise
from torch import Tensor, nn

from edgedl.compress.encodings.calibrate import calibrate
from edgedl.compress.encodings.emit import emit
from edgedl.compress.graph.passes.fold.input_norm import take_out_input_norms
from edgedl.compress.graph.trace import trace
from edgedl.compress.targets.named import ORT, TFLITE

IDS = torch.arange(10).reshape(2, 5)
NUMBERS = nn.Buffer(torch.tensor([1.0, 1.1, 1.2]))
LAYERS = {
    "linear": nn.Linear(4, 8),
    "conv": nn.Conv2d(3, 4, 3),
    "padded": nn.Conv2d(3, 4, 3, padding=1),
    "table": nn.Embedding(40, 5),
}


def written_in_place(net: Net, x: Tensor) -> Tensor:
    numbers = torch.ones(3)
    numbers[0] = 2.0
    return net.padded(x / numbers.view(3, 1, 1))


def far(net: Net, x: Tensor) -> Tensor:
    return net.linear(net.norm(x.relu() + 3000))


@pytest.mark.parametrize(
    ("forward", "x"),
    [
        (lambda net, x: x.sum(1) * 0.5 + net.linear(x)[:, 0], noise(4, 4)),
        (lambda net, x: net.linear(x) + x[:1].mean() * 0.5, noise(4, 4)),
        (lambda net, x: net.linear(x + 0.5), IDS[:, :4]),
        (lambda net, x: net.linear(x * 0.5), IDS[:, :4]),
        (lambda net, x: net.linear((x > 0) * 2.0 - 1.0), noise(2, 4)),
        (lambda net, x: net.conv((x > 0) * net.numbers.view(3, 1, 1)), noise(2, 3, 6, 6)),
        (lambda net, x: net.table(x * 2 + 1), IDS),
        (lambda net, x: net.padded(x + net.numbers.view(3, 1, 1) * x.shape[0]), noise(2, 3, 6, 6)),
        (lambda net, x: net.padded(x - net.bytes.view(3, 1, 1)), noise(2, 3, 6, 6)),
        (lambda net, x: net.padded((x.double() * 2 - 1).float()), noise(2, 3, 6, 6)),
        (written_in_place, noise(2, 3, 6, 6)),
        (far, noise(2, 4)),
    ],
)
def test_the_graph_computes_what_the_module_computes(
    forward: Callable[[Net, Tensor], Tensor], x: Tensor
) -> None:
    norm = nn.BatchNorm1d(4)
    norm.running_mean.fill_(3000.3)
    norm.running_var.fill_(1e-2)
    few = nn.Buffer(torch.tensor([1, 2, 3], dtype=torch.uint8))
    net = Net(forward, numbers=NUMBERS, bytes=few, norm=norm, **LAYERS).eval()
    graph = trace(net, (x,))
    if forward is not far:
        assert_numerically_equal(net, graph, x)
    if x.is_floating_point():
        encodings = calibrate(graph, [(x,)], "minmax")
        for target in (ORT, TFLITE):
            assert torch.isfinite(emit(graph, encodings, target)(x)).all()


@pytest.mark.parametrize(
    ("forward", "x"),
    [
        (lambda net, x: net.table(x + 1), IDS),
        # Time or channels: nobody knows.
        (lambda net, x: (x * 2 - 1).tanh(), noise(2, 6, 4)),
    ],
)
def test_it_is_not_taken_out(forward: Callable[[Net, Tensor], Tensor], x: Tensor) -> None:
    graph = trace(Net(forward, **LAYERS).eval(), (x,))
    assert take_out_input_norms(graph) == (graph, {})
