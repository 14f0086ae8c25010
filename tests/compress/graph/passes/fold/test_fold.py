"""Scales and shifts folded into layers, against torch's own modules and hand-written formulas."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rewritten_graphs import operators, traced
from small_networks import Net, noise, trained
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edgedl.compress.graph.edit import get_tensor
from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.operators.table import is_weighted

IMAGES = (3, 8, 8)


def constants_of(graph: fx.GraphModule, node: fx.Node) -> list[Tensor]:
    return [get_tensor(graph, str(c.target)) for c in node.args[1:3] if c]


def weighted(graph: fx.GraphModule) -> list[fx.Node]:
    return [n for n in graph.graph.nodes if is_weighted(n)]


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), IMAGES),
        (nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, eps=0.1), IMAGES),
        (nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6), IMAGES),
        (nn.Conv2d(3, 4, 3, padding="same"), nn.BatchNorm2d(4, affine=False), IMAGES),
        (nn.Conv1d(3, 5, 3), nn.BatchNorm1d(5), (3, 12)),
        (nn.Linear(6, 4), nn.BatchNorm1d(4), (6,)),
        (nn.Linear(6, 4, bias=False), nn.BatchNorm1d(4), (6,)),
    ],
)
def test_batch_norm_folds_into_its_layer(
    layer: nn.Module, norm: nn.Module, shape: tuple[int, ...]
) -> None:
    graph = traced(nn.Sequential(layer, trained(norm)), *shape)
    assert operators(graph)["batch_norm"] == 0
    (node,) = weighted(graph)
    weight, bias = constants_of(graph, node)
    deviation = np.sqrt(norm.running_var.numpy().astype(np.float64) + norm.eps)
    gamma = norm.weight.detach().numpy() if norm.affine else 1.0
    beta = norm.bias.detach().numpy() if norm.affine else 0.0
    old_bias = 0.0 if layer.bias is None else layer.bias.detach().numpy()
    factor = (gamma / deviation).reshape(-1, *[1] * (weight.ndim - 1))
    np.testing.assert_allclose(weight, layer.weight.detach().numpy() * factor, rtol=1e-5)
    expected = (old_bias - norm.running_mean.numpy()) * factor.ravel() + beta
    np.testing.assert_allclose(bias, expected, rtol=1e-4, atol=1e-6)


def test_folding_is_torchs_own() -> None:
    conv, norm = nn.Conv2d(3, 4, 3), trained(nn.BatchNorm2d(4))
    graph = traced(nn.Sequential(conv, norm), *IMAGES)
    fused = fuse_conv_bn_eval(conv.eval(), norm.eval())
    weight, bias = constants_of(graph, weighted(graph)[0])
    torch.testing.assert_close(weight, fused.weight.detach())
    torch.testing.assert_close(bias, fused.bias.detach())


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: net.norm(x),
        lambda net, x: net.norm(F.relu(x)),
        lambda net, x: net.norm(F.max_pool2d(x, 2)),
    ],
)
def test_batch_norm_without_a_layer_becomes_depthwise(forward: Callable) -> None:
    graph = traced(Net(forward, norm=trained(nn.BatchNorm2d(3))), *IMAGES)
    assert operators(graph)["batch_norm"] == 0
    (node,) = weighted(graph)
    assert get_tensor(graph, str(node.args[1].target)).shape == (3, 1, 1, 1)
    assert node.args[6] == 3


def test_batch_norm_of_vectors_without_a_layer_is_a_product_and_a_sum() -> None:
    graph = traced(Net(lambda net, x: net.norm(x), norm=trained(nn.BatchNorm1d(6))), 6)
    assert operators(graph) == {"mul": 1, "add": 1}


@pytest.mark.parametrize(
    ("layers", "shape", "left"),
    [
        ((nn.BatchNorm1d(6), nn.Linear(6, 4)), (6,), {"linear": 1}),
        ((nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)), IMAGES, {"conv2d": 1}),
        ((nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1)), IMAGES, {"conv2d": 2}),
    ],
)
def test_behind_a_relu_it_goes_into_the_layers_that_read_it(
    layers: tuple[nn.Module, nn.Module], shape: tuple[int, ...], left: dict[str, int]
) -> None:
    norm, layer = layers
    alone = Net(lambda net, x: net.layer(net.norm(x.relu())), norm=trained(norm), layer=layer)
    assert operators(traced(alone, *shape)) == {"relu": 1, **left}
    twice = Net(
        lambda net, x: net.layer(y := net.norm(x.relu())) + net.other(y),
        norm=trained(norm),
        layer=layer,
        other=copy.deepcopy(layer),
    )
    (kind,) = left
    found = operators(traced(twice, *shape))
    assert found == {"relu": 1, "add": 1, kind: left[kind] + 1}


def test_a_weight_that_two_layers_share_stays_one() -> None:
    net = Net(
        lambda net, x: net.layer(net.norm(net.layer(x).relu())),
        norm=trained(nn.BatchNorm1d(6)),
        layer=nn.Linear(6, 6),
    )
    graph = traced(net, 6)
    assert operators(graph) == {"linear": 2, "relu": 1, "mul": 1, "add": 1}
    assert len({str(n.args[1].target) for n in weighted(graph)}) == 1


def test_a_linear_layer_over_another_axis_than_the_norms() -> None:
    net = Net(
        lambda net, x: net.layer(net.norm(x.relu())),
        norm=trained(nn.BatchNorm1d(3)),
        layer=nn.Linear(3, 4),
    )
    assert operators(traced(net, 3, 3)) == {"relu": 1, "conv1d": 1, "linear": 1}


def test_a_norm_that_something_else_reads_too_stays() -> None:
    net = Net(
        lambda net, x: net.layer(y := net.norm(x.relu())).mean() + y,
        norm=trained(nn.BatchNorm2d(3)),
        layer=nn.Conv2d(3, 4, 1),
    )
    assert operators(traced(net, *IMAGES))["conv2d"] == 2


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: net.conv(x) / 3 - 1,
        lambda net, x: 1 - net.conv(x),
        lambda net, x: net.scale * net.conv(x) + net.scale,
        lambda net, x: net.norm(net.conv(x) * 0.5) * net.scale,
        lambda net, x: net.conv(x) / net.scale,
        lambda net, x: net.line(x) * net.row - net.row,
        lambda net, x: net.up(x) * net.scale,
        lambda net, x: net.one + net.conv(x),
    ],
)
def test_arithmetic_with_stored_numbers_is_part_of_the_layer(forward: Callable) -> None:
    net = Net(
        forward,
        conv=nn.Conv2d(3, 4, 3),
        up=nn.ConvTranspose2d(3, 4, 3, bias=False),
        line=nn.Linear(8, 5, bias=False),
        norm=trained(nn.BatchNorm2d(4)),
        scale=nn.Parameter(torch.rand(1, 4, 1, 1) + 0.5),
        row=nn.Parameter(torch.rand(5) + 0.5),
        one=nn.Parameter(torch.tensor([0.3])),
    )
    graph = traced(net, *IMAGES)
    (layer,) = [n for n in graph.graph.nodes if n.op == "call_function"]
    assert is_weighted(layer)


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: 2 * F.leaky_relu(net.conv(x)),
        lambda net, x: F.max_pool2d(F.relu(net.conv(x)), 2) / 3,
        lambda net, x: net.conv(x.sigmoid() * -3),
    ],
)
def test_a_factor_goes_through_what_is_homogeneous(forward: Callable) -> None:
    graph = traced(Net(forward, conv=nn.Conv2d(3, 4, 3, padding=1)), *IMAGES)
    assert not graph.graph.find_nodes(op="call_function", target=aten.mul.Tensor)


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: (lambda y: y + 2 * y)(net.conv(x)),
        lambda net, x: net.conv(x) * net.row,
        lambda net, x: net.conv(x) + net.conv(x),
        lambda net, x: F.relu6(net.conv(x)) * 2,
        lambda net, x: F.relu(net.conv(x)) * -2,
    ],
)
def test_other_arithmetic_stays(forward: Callable) -> None:
    net = Net(forward, conv=nn.Conv2d(3, 4, 3), row=nn.Parameter(torch.rand(6)))
    graph = traced(net, *IMAGES)
    assert {aten.mul.Tensor, aten.add.Tensor} & {n.target for n in graph.graph.nodes}


class TiedLayers(nn.Module):
    """Two convolutions with one weight, each with a batch norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.second.weight = self.first.weight
        self.norms = nn.ModuleList([trained(nn.BatchNorm2d(3)), nn.BatchNorm2d(3, eps=0.5)])

    def forward(self, x: Tensor) -> Tensor:
        return self.norms[1](self.second(F.relu(self.norms[0](self.first(x)))))


def _shared_module() -> nn.Module:
    return Net(
        lambda net, x: net.one(net.conv(x)) + net.two(net.conv(F.relu(x))),
        conv=nn.Conv2d(3, 3, 3),
        one=trained(nn.BatchNorm2d(3)),
        two=nn.BatchNorm2d(3, eps=0.5),
    )


def _functional_weight() -> nn.Module:
    return Net(
        lambda net, x: F.conv2d(F.relu(net.norm(F.conv2d(x, net.w))), net.w),
        w=nn.Parameter(noise(3, 3, 1, 1, seed=4)),
        norm=trained(nn.BatchNorm2d(3)),
    )


def _output_used_twice() -> nn.Module:
    def forward(net: Net, x: Tensor) -> Tensor:
        h = net.conv(x)
        return net.norm(h) + h

    return Net(forward, conv=nn.Conv2d(3, 3, 3), norm=trained(nn.BatchNorm2d(3)))


@pytest.mark.parametrize("make", [TiedLayers, _shared_module, _functional_weight])
def test_layers_that_share_a_weight_are_folded_apart(make: Callable[[], nn.Module]) -> None:
    graph = traced(make(), *IMAGES)
    assert operators(graph)["batch_norm"] == 0
    first, second = (constants_of(graph, node)[0] for node in weighted(graph))
    assert not torch.equal(first, second)
    # The factors of a batch norm are one per output channel.
    ratio = (first / second).flatten(1)
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))


def test_an_output_that_others_read_is_not_folded_into() -> None:
    module = _output_used_twice()
    graph = traced(module, *IMAGES)
    assert operators(graph) == {"conv2d": 2, "add": 1}
    torch.testing.assert_close(constants_of(graph, weighted(graph)[0])[0], module.conv.weight.data)


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: (x - net.mean) / net.std,
        lambda net, x: (x - net.mean) * net.std,
    ],
)
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (3, 1, 1)])
def test_normalisation_becomes_one_depthwise_convolution(
    forward: Callable, shape: tuple[int, ...]
) -> None:
    mean, std = torch.tensor([0.1, 0.5, -0.2]), torch.tensor([0.3, 2.0, 0.7])
    net = Net(forward, mean=nn.Buffer(mean.view(shape)), std=nn.Buffer(std.view(shape)))
    graph = traced(net, *IMAGES)
    assert operators(graph) == {"conv2d": 1}


def test_normalisation_is_not_folded_into_a_padding_convolution() -> None:
    net = Net(
        lambda net, x: net.conv((x - net.mean) / net.std),
        mean=nn.Buffer(torch.full((1, 3, 1, 1), 5.0)),
        std=nn.Buffer(torch.full((1, 3, 1, 1), 0.5)),
        conv=nn.Conv2d(3, 2, 3, padding=1),
    )
    assert operators(traced(net, *IMAGES)) == {"conv2d": 2}


def test_tensors_that_are_no_longer_used_are_dropped() -> None:
    graph = traced(nn.Sequential(nn.Conv2d(3, 4, 1), trained(nn.BatchNorm2d(4))), *IMAGES)
    assert operators(graph) == {"conv2d": 1}
    owned = [*dict(graph.named_parameters()), *dict(graph.named_buffers())]
    used = {str(n.target) for n in graph.graph.nodes if n.op == "get_attr"}
    assert set(owned) == used
    assert len(owned) == 2
