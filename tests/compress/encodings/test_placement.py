"""Where each target's quantize/dequantize pairs stand, on graphs small enough to list them."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from small_networks import Net, Quantized, noise
from torch import Tensor, nn

from edgedl.compress.encodings.placement import (
    activation_bounds,
    fused_activation,
    place,
    quantized_nodes,
)
from edgedl.compress.graph.operators.table import is_weighted
from edgedl.compress.targets.named import ORT, TENSORRT, TFLITE


def quantized(forward: Callable, gain: float = 1.0, **layers: nn.Module) -> Quantized:
    net = Net(forward, **layers)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter *= gain
    return Quantized(net, (noise(16, 3, 6, 6),))


def placed(net: Quantized, target: str) -> dict[str, set[str]]:
    placement = place(net.graph.graph, net.encodings, target)
    return {node.name: {u.name for u in users} for node, users in placement.items()}


def convs(count: int) -> dict[str, nn.Module]:
    return {name: nn.Conv2d(3, 3, 1) for name in "abcd"[:count]}


def test_ort_and_tflite_quantize_all_but_what_is_before_a_fused_relu() -> None:
    net = quantized(lambda net, x: net.b(F.relu(net.a(x))), **convs(2))
    expected = {"x": {"conv2d"}, "relu": {"conv2d_1"}, "conv2d_1": {"output"}}
    assert placed(net, ORT) == expected
    assert placed(net, TFLITE) == expected


def test_tensorrt_quantizes_inputs_of_layers_only() -> None:
    net = quantized(lambda net, x: F.max_pool2d(net.b(F.relu(net.a(x))), 2), **convs(2))
    assert placed(net, TENSORRT) == {"x": {"conv2d"}, "relu": {"conv2d_1"}}


def _residual(net: Net, x: Tensor) -> Tensor:
    h = F.relu(net.a(x))
    return F.relu(net.b(h) + h)


def _residual_swapped(net: Net, x: Tensor) -> Tensor:
    h = F.relu(net.a(x))
    return F.relu(h + net.b(h))


@pytest.mark.parametrize("forward", [_residual, _residual_swapped])
def test_residual_add(forward: Callable) -> None:
    net = quantized(forward, **convs(2))
    # TensorRT fuses the add into the convolution: only the other operand is quantized.
    assert placed(net, TENSORRT) == {"x": {"conv2d"}, "relu": {"conv2d_1", "add"}}
    assert placed(net, ORT) == {
        "x": {"conv2d"},
        "relu": {"conv2d_1", "add"},
        "conv2d_1": {"add"},
        "relu_1": {"output"},
    }


def test_an_add_without_a_convolution_of_its_own_is_left_to_tensorrt() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        h = net.a(x)
        return h + F.relu(h)

    assert placed(quantized(forward, **convs(1)), TENSORRT) == {"x": {"conv2d"}}


def test_an_output_that_others_read_too_is_not_fused() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        h = net.a(x)
        return F.relu(h) + h

    assert placed(quantized(forward, **convs(1)), ORT)["conv2d"] == {"relu", "add"}


@pytest.mark.parametrize(
    ("activation", "gain", "dropped"),
    [
        (F.relu, 1.0, True),
        (F.relu6, 20.0, True),
        (lambda x: torch.clamp(x, min=0.0), 1.0, True),
        (lambda x: F.hardtanh(x, -0.5, 2.0), 20.0, True),
        # The grid always holds zero, which is below this lower bound.
        (lambda x: torch.clamp(x, min=0.5), 1.0, False),
    ],
)
def test_ort_keeps_a_pair_where_it_could_not_drop_the_activation(
    activation: Callable, gain: float, dropped: bool
) -> None:
    net = quantized(lambda net, x: net.b(activation(net.a(x))), gain, **convs(2))
    assert ("conv2d" in placed(net, ORT)) == (not dropped)
    assert "conv2d" not in placed(net, TFLITE)


def test_a_concat_of_a_relu_branch_and_a_signed_one_keeps_a_pair_before_the_relu() -> None:
    net = quantized(lambda net, x: torch.cat([F.relu(net.a(x)), net.b(x)], 1), **convs(2))
    assert "conv2d" in placed(net, ORT)
    assert "conv2d" not in placed(net, TFLITE)


def test_unknown_operators_are_float_islands() -> None:
    net = quantized(lambda net, x: net.b(torch.erf(net.a(x)).transpose(2, 3)), **convs(2))
    chosen = {n.name for n in quantized_nodes(net.graph.graph, net.encodings)}
    assert chosen == {"conv2d", "conv2d_1"}
    assert placed(net, ORT) == {
        "x": {"conv2d"},
        "conv2d": {"erf"},
        "transpose": {"conv2d_1"},
        "conv2d_1": {"output"},
    }


def test_a_weight_that_is_computed_is_not_quantized() -> None:
    net = quantized(lambda net, x: F.conv2d(x, net.a.weight * x.mean()), **convs(1))
    chosen = quantized_nodes(net.graph.graph, net.encodings)
    assert not [node for node in chosen if is_weighted(node)]
    assert placed(net, TENSORRT) == {}


def test_fused_activation_needs_to_be_the_only_user() -> None:
    net = quantized(lambda net, x: F.relu(net.a(x)) + F.relu(net.b(x).sigmoid() * x), **convs(2))
    found = {n.name: fused_activation(n) for n in net.graph.graph.nodes}
    assert found["conv2d"].name == "relu"
    assert found["mul"].name == "relu_1"
    assert found["sigmoid"] is None
    assert found["conv2d_1"] is None
    assert found["relu"] is None


@pytest.mark.parametrize(
    ("activation", "bounds"),
    [
        (F.relu, (0.0, math.inf)),
        (nn.ReLU(inplace=True), (0.0, math.inf)),
        (F.relu6, (0.0, 6.0)),
        (nn.ReLU6(), (0.0, 6.0)),
        (F.hardtanh, (-1.0, 1.0)),
        (nn.Hardtanh(-2.0, 3.0), (-2.0, 3.0)),
        (lambda x: torch.clamp(x, -0.5, 4.0), (-0.5, 4.0)),
        (lambda x: torch.clamp(x, min=0.0), (0.0, math.inf)),
        (lambda x: torch.clamp(x, max=2.0), (-math.inf, 2.0)),
    ],
)
def test_activation_bounds_are_what_the_activation_lets_through(
    activation: Callable, bounds: tuple[float, float]
) -> None:
    net = quantized(lambda net, x: activation(net.a(x)), **convs(1))
    (conv,) = [n for n in net.graph.graph.nodes if n.name == "conv2d"]
    assert activation_bounds(fused_activation(conv)) == bounds
    extremes = activation(torch.tensor([-1e9, 1e9]))
    assert extremes.tolist() == [max(bounds[0], -1e9), min(bounds[1], 1e9)]
