"""Emitted graphs against integer layers written out in numpy (int32 accumulators)."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from integer_kernels import accumulate, centred, convolve, requantize, weight_integers
from small_networks import NETWORKS, Net, Quantized, network, noise
from torch import Tensor, fx, nn

from edgedl.compress.encodings.affine import affine_for
from edgedl.compress.encodings.emit import emit
from edgedl.compress.encodings.encodings import weight_scales
from edgedl.compress.graph.edit import get_tensor, output_nodes
from edgedl.compress.targets.named import ORT, TENSORRT, TFLITE

INTEGER_TARGETS = (ORT, TFLITE)
_ops = torch.ops.quantized_decomposed

LAYERS = {
    "conv": (nn.Conv2d, (3, 4, 3), {}, (3, 7, 7)),
    "strided": (nn.Conv2d, (3, 4, 3), {"stride": 2, "padding": 1}, (3, 7, 7)),
    "depthwise": (nn.Conv2d, (4, 4, 3), {"groups": 4, "padding": 1}, (4, 6, 6)),
    "grouped": (nn.Conv2d, (4, 6, 1), {"groups": 2, "bias": False}, (4, 5, 5)),
    "same": (nn.Conv2d, (3, 4, 3), {"padding": "same"}, (3, 6, 6)),
    "conv1d": (nn.Conv1d, (3, 4, 3), {"stride": 2, "padding": 1}, (3, 11)),
    "linear": (nn.Linear, (20, 6), {}, (20,)),
    "linear_without_bias": (nn.Linear, (20, 6), {"bias": False}, (20,)),
}


def layer(name: str) -> Quantized:
    make, arguments, options, shape = LAYERS[name]
    torch.manual_seed(2)
    net = Net(lambda net, x: net.layer(x), layer=make(*arguments, **options))
    return Quantized(net, (3 * noise(40, *shape) + 1,))


def products(module: nn.Module, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return the integer products of a layer before its bias, in its own shape."""
    if isinstance(module, nn.Linear):
        return x @ w.T
    padding = 1 if module.padding == "same" else module.padding[0]
    if isinstance(module, nn.Conv2d):
        return convolve(x, w, module.stride[0], padding, module.groups)
    # A 1-D convolution is a 2-D one of height 1: pad the width only.
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding)))[:, :, None]
    return convolve(x, w[:, :, None])[:, :, 0, :: module.stride[0]]


def integer_layer(net: Quantized, target: str, activation: Callable | None = None) -> np.ndarray:
    """Compute a network of one layer in integers and return the output's integers."""
    ranges = net.encodings.activations
    module = net.module.layer
    (x,) = net.arrays
    source = affine_for(ranges["x"], target)
    sink = affine_for(ranges[output_nodes(net.graph)[0].name], target)
    w, scales = weight_integers(module.weight.detach().numpy())
    steps = scales.astype(np.float64) * source.scale
    bias = None if module.bias is None else module.bias.detach().numpy()
    total = accumulate(products(module, centred(x, source), w), bias, steps)
    integers = requantize(total, steps, sink)
    if activation is None:
        return integers
    bounded = activation(torch.tensor(sink.dequantize(integers))).numpy()
    return sink.quantize(bounded).astype(np.float64)


def emitted_integers(net: Quantized, target: str) -> np.ndarray:
    sink = affine_for(net.encodings.activations[output_nodes(net.graph)[0].name], target)
    (y,) = net.outputs(net.emitted(target))
    integers = y / np.float64(sink.scale) + sink.zero_point
    assert np.abs(integers - np.rint(integers)).max() < 1e-3
    return np.rint(integers)


def assert_same_integers(found: np.ndarray, expected: np.ndarray) -> None:
    """Allow one step where the float of torch and the integers round a tie differently."""
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1
    assert (found == expected).mean() > 0.998


@pytest.mark.parametrize("target", INTEGER_TARGETS)
@pytest.mark.parametrize("name", LAYERS)
def test_layer_is_the_integer_layer(name: str, target: str) -> None:
    net = layer(name)
    expected = integer_layer(net, target)
    assert len(np.unique(expected)) > 50
    assert_same_integers(emitted_integers(net, target), expected)


@pytest.mark.parametrize("name", ["strided", "linear"])
def test_tensorrt_layer_is_symmetric_with_a_float_bias_and_output(name: str) -> None:
    net = layer(name)
    module = net.module.layer
    source = affine_for(net.encodings.activations["x"], TENSORRT)
    w, scales = weight_integers(module.weight.detach().numpy())
    total = products(module, centred(net.arrays[0], source), w)
    tail = [1] * (total.ndim - 2)
    expected = total * (scales * np.float64(source.scale)).reshape(1, -1, *tail)
    expected += module.bias.detach().numpy().reshape(1, -1, *tail)
    emitted = net.emitted(TENSORRT)
    assert torch.equal(get_tensor(emitted, "layer.bias"), module.bias.detach())
    (found,) = net.outputs(emitted)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", INTEGER_TARGETS)
@pytest.mark.parametrize(
    ("activation", "bounds"),
    [
        (F.relu, (0.0, np.inf)),
        (F.relu6, (0.0, 6.0)),
        (F.hardtanh, (-1.0, 1.0)),
        (lambda x: torch.clamp(x, -0.7, 4.0), (-0.7, 4.0)),
        (lambda x: torch.clamp(x, min=0.5), (0.5, np.inf)),
        (lambda x: torch.clamp(x, max=2.0), (-np.inf, 2.0)),
    ],
)
def test_activations_bound_the_integers(
    activation: Callable, bounds: tuple[float, float], target: str
) -> None:
    torch.manual_seed(2)
    conv = nn.Conv2d(3, 4, 3)
    conv.weight.data *= 8
    net = Quantized(Net(lambda n, x: activation(n.layer(x)), layer=conv), (noise(40, 3, 7, 7),))
    expected = integer_layer(net, target, activation)
    assert_same_integers(emitted_integers(net, target), expected)
    (y,) = net.outputs(net.emitted(target))
    step = net.steps[0]
    assert bounds[0] - step <= y.min()
    assert y.max() <= bounds[1] + step


@pytest.mark.parametrize("target", INTEGER_TARGETS)
@pytest.mark.parametrize("operator", [torch.add, torch.mul])
def test_elementwise_operators_work_on_dequantized_integers(
    operator: Callable, target: str
) -> None:
    net = Quantized(
        Net(lambda n, x: operator(n.a(x), F.relu(n.a(x.flip(2)))), a=nn.Conv2d(3, 4, 1)),
        (noise(20, 3, 6, 6),),
    )
    ranges = net.encodings.activations
    emitted = net.emitted(target)
    (pair,) = [
        n
        for n in emitted.graph.nodes
        if n.target in (torch.ops.aten.add.Tensor, torch.ops.aten.mul.Tensor)
    ]
    for operand in pair.args:
        assert operand.target is _ops.dequantize_per_tensor.default
        assert operand.args[1] == affine_for(ranges[source_of(operand).name], target).scale
    (found,), (plain,) = net.outputs(emitted), net.outputs(net.graph)
    assert np.abs(found - plain).max() < 6 * net.steps[0]
    assert np.abs(found - plain).mean() < 1.5 * net.steps[0]


def source_of(dequantize: fx.Node) -> fx.Node:
    return dequantize.args[0].args[0]


@pytest.mark.parametrize("target", INTEGER_TARGETS)
def test_biases_are_multiples_of_the_accumulators_step(target: str) -> None:
    net = network("operators")
    emitted = net.emitted(target)
    checked = 0
    for node in emitted.graph.nodes:
        if node.target in (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default):
            weight_scale = get_tensor(emitted, str(node.args[1].args[1].target)).double()
            step = weight_scale * node.args[0].args[1]
            integers = get_tensor(emitted, str(node.args[2].target)).double() / step
            assert (integers - integers.round()).abs().max() < 0.01
            assert integers.abs().max() < 2**31
            checked += 1
    assert checked == 5


@pytest.mark.parametrize("target", INTEGER_TARGETS)
@pytest.mark.parametrize("bias", [2.0, -1e6])
def test_a_dead_channel_with_a_bias_fits_int32(bias: float, target: str) -> None:
    conv = nn.Conv2d(3, 4, 1)
    conv.weight.data[2] = 0
    conv.bias.data[2] = bias
    net = Quantized(Net(lambda n, x: n.layer(x), layer=conv), (noise(20, 3, 5, 5),))
    (found,) = net.outputs(net.emitted(target))
    assert np.abs(found[:, 2] - bias).max() <= net.steps[0]


@pytest.mark.parametrize("target", [ORT, TENSORRT])
def test_layers_that_share_a_weight_share_its_integers(target: str) -> None:
    net = network("operators")
    emitted = net.emitted(target)
    path = "shared.weight"
    (constant,) = [n for n in net.graph.graph.nodes if n.target == path]
    assert len(constant.users) == 2
    integers = [get_tensor(emitted, f"{n.name}_weight_int8") for n in constant.users]
    scales = weight_scales(net.encodings.weights[path], net.encodings.weight_qmax).view(-1, 1, 1, 1)
    expected = torch.round(get_tensor(net.graph, path) / scales)
    assert integers[0].dtype == torch.int8
    assert torch.equal(integers[0], integers[1])
    assert torch.equal(integers[0].float(), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_emitting_leaves_the_float_graph_alone(name: str) -> None:
    net = network(name)
    code = net.graph.code
    before = {key: value.clone() for key, value in net.graph.state_dict().items()}
    for target in (ORT, TFLITE, TENSORRT):
        emit(net.graph, net.encodings, target)
    after = net.graph.state_dict()
    assert net.graph.code == code
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", NETWORKS)
def test_ort_and_tflite_graphs_are_one_network_near_the_float_one(name: str) -> None:
    net = network(name)
    ort, tflite = (net.outputs(net.emitted(target)) for target in INTEGER_TARGETS)
    for a, b, plain, step in zip(ort, tflite, net.outputs(net.graph), net.steps, strict=True):
        np.testing.assert_allclose(a, b, atol=step * 1e-3)
        assert np.abs(a - plain).mean() < 1.5 * step


def test_a_float_island_keeps_its_layers_around_it_quantized() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.b(torch.erf(net.a(x)))

    net = Quantized(Net(forward, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 2, 1)), (noise(9, 3, 5, 5),))
    emitted = net.emitted(ORT)
    pairs = [n for n in emitted.graph.nodes if n.target is _ops.dequantize_per_tensor.default]
    assert [source_of(n).name for n in pairs] == ["x", "conv2d", "erf", "conv2d_1"]
