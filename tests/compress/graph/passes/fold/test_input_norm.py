"""Normalisations of an input: in the layer behind where that is exact, else in float."""

from collections.abc import Callable

import onnx
import pytest
import torch
from rewritten_graphs import assert_numerically_equal, operators, traced
from small_networks import Net, noise, trained
from torch import nn

from edgedl.compress.encodings.calibrate import calibrate
from edgedl.compress.encodings.emit import emit
from edgedl.compress.export.onnx.write import to_onnx
from edgedl.compress.graph.passes.fold.input_norm import take_out_input_norms, write_input_norms
from edgedl.compress.graph.trace import trace
from edgedl.compress.targets.named import ORT, TFLITE

IMAGES = (3, 8, 8)


def normalised(layer: nn.Module, mean: float = 0.5, std: float = 0.25) -> Net:
    return Net(
        lambda net, x: net.layer((x - net.mean) / net.std),
        mean=nn.Buffer(torch.tensor([mean, mean * 0.9, mean * 0.8]).view(3, 1, 1)),
        std=nn.Buffer(torch.tensor([std, std * 1.1, std * 0.9]).view(3, 1, 1)),
        layer=layer,
    ).eval()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, 3),
        nn.Conv2d(3, 4, 4, stride=4, bias=False),
        nn.Conv2d(3, 6, 3, groups=3),
        nn.Conv2d(3, 4, 1, padding="same"),
    ],
)
def test_it_goes_into_a_convolution_that_pads_nothing(layer: nn.Module) -> None:
    assert operators(traced(normalised(layer), *IMAGES)) == {"conv2d": 1}


@pytest.mark.parametrize(
    "network",
    [
        normalised(nn.Conv2d(3, 4, 3, padding=1)),
        normalised(nn.Conv2d(3, 4, 3, padding="same")),
        # The grid of the input would have a value of 100 in it.
        normalised(nn.Conv2d(3, 4, 3), mean=100.0),
        Net(
            lambda net, x: net.layer(y := net.norm(x)) + y.mean(),
            norm=trained(nn.BatchNorm2d(3)),
            layer=nn.Conv2d(3, 4, 1),
        ).eval(),
    ],
)
def test_else_it_stays(network: nn.Module) -> None:
    assert operators(traced(network, *IMAGES))["conv2d"] == 2


IN_FORWARD = ([0.5, 0.45, 0.4], [0.25, 0.27, 0.22])


@pytest.mark.parametrize(
    "norm",
    [
        lambda net, x: (
            (x - torch.tensor(IN_FORWARD[0]).view(3, 1, 1))
            / torch.tensor(IN_FORWARD[1]).view(3, 1, 1)
        ),
        lambda net, x: (x - net.mean[None, :, None, None]) / net.std[None, :, None, None],
        lambda net, x: (x / 2 - net.mean.view(3, 1, 1)) / net.std.view(3, 1, 1),
        lambda net, x: (x - 0.5) / net.std.view(3, 1, 1),
    ],
    ids=["computed_in_forward", "indexed", "scaled_first", "a_number_and_channels"],
)
def test_however_it_is_written_it_is_one_layer(norm: Callable[..., torch.Tensor]) -> None:
    mean, std = (nn.Buffer(torch.tensor(v)) for v in IN_FORWARD)
    layer = nn.Conv2d(3, 4, 3, padding=1)
    net = Net(lambda net, x: net.layer(norm(net, x)), mean=mean, std=std, layer=layer).eval()
    assert operators(traced(net, *IMAGES)) == {"conv2d": 2}


@pytest.mark.parametrize("norm", [lambda x: (x - 0.5) / 0.25, lambda x: x * 2 - 1])
@pytest.mark.parametrize(
    ("layer", "left"), [(nn.Conv2d(3, 4, 3, padding=1), 1), (nn.Conv2d(3, 4, 3), 0)]
)
def test_of_numbers_at_most_a_sum_is_left(
    norm: Callable[[torch.Tensor], torch.Tensor], layer: nn.Module, left: int
) -> None:
    net = Net(lambda net, x: net.layer(norm(x)), layer=layer).eval()
    found = operators(traced(net, *IMAGES))
    assert found == ({"add": 1, "conv2d": 1} if left else {"conv2d": 1})


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_features_go_into_the_linear_layer_where_one_grid_holds_them(scale: float) -> None:
    net = features(scale)
    x = noise(64, 4) * net.std + net.mean
    graph = trace(net, (x,))
    assert_numerically_equal(net, graph, x)
    alone = scale == 1
    assert operators(graph) == ({"linear": 1} if alone else {"add": 1, "mul": 1, "linear": 1})
    encodings = calibrate(graph, [(x,)], "minmax")
    for target in (ORT, TFLITE):
        emitted = emit(graph, encodings, target)
        called = [n for n in emitted.graph.nodes if n.op == "call_function"]
        first = called[0].target.overloadpacket.__name__
        assert first == ("quantize_per_tensor" if alone else "add")
        lost, size = (emitted(x) - net(x)).square().sum(), net(x).square().sum()
        assert lost < size * 1e-2


def features(scale: float) -> Net:
    return Net(
        lambda net, x: net.layer((x - net.mean) / net.std),
        mean=nn.Buffer(torch.tensor([0.1, 0.2, 0.3 * scale, -0.1 * scale])),
        std=nn.Buffer(torch.tensor([0.1, 0.15, 0.2 * scale, 0.2 * scale])),
        layer=nn.Linear(4, 8),
    ).eval()


def test_features_of_unlike_size_are_taken_out_one_by_one() -> None:
    net = features(1000.0)
    without, found = take_out_input_norms(trace(net, (noise(2, 4),)))
    assert operators(without) == {"linear": 1}
    (norm,) = found.values()
    assert norm.mean == pytest.approx(net.mean.tolist(), rel=1e-6)
    assert norm.std == pytest.approx(net.std.tolist(), rel=1e-6)


def test_channels_of_unlike_size_stay_apart() -> None:
    net = normalised(nn.Conv2d(3, 4, 3))
    net.std.data[0] *= 10
    assert operators(traced(net, *IMAGES)) == {"conv2d": 2}


@pytest.mark.parametrize("dimensions", [1, 2])
def test_a_float_one_is_a_batch_norm(dimensions: int) -> None:
    kind = (nn.Conv1d, nn.Conv2d)[dimensions - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d)[dimensions - 1]
    net = nn.Sequential(trained(norm(3)), kind(3, 4, 3, padding=1)).eval()
    x = noise(2, 3, *[8] * dimensions)
    graph = trace(net, (x,))
    written = write_input_norms(graph)
    assert operators(written)["batch_norm"] == 1
    assert_numerically_equal(net, written, x)
    assert write_input_norms(written) is written


def test_only_runtimes_with_a_fast_float_norm_compute_it_in_float() -> None:
    net = normalised(nn.Conv2d(3, 4, 3, padding=1))
    x = noise(4, *IMAGES)
    graph = trace(net, (x,))
    encodings = calibrate(graph, [(x,)], "minmax")
    for target, first in ((ORT, "batch_norm"), (TFLITE, "quantize_per_tensor")):
        called = [n for n in emit(graph, encodings, target).graph.nodes if n.op == "call_function"]
        assert called[0].target.overloadpacket.__name__ == first
    file = onnx.load_from_string(to_onnx(emit(graph, encodings, ORT), (x,)))
    kinds = [node.op_type for node in file.graph.node]
    assert kinds[:2] == ["BatchNormalization", "QuantizeLinear"]


def test_it_is_taken_out_with_its_means_and_deviations() -> None:
    net = normalised(nn.Conv2d(3, 4, 3, padding=1))
    x = noise(2, *IMAGES)
    graph = trace(net, (x,))
    without, found = take_out_input_norms(graph)
    assert operators(without) == {"conv2d": 1}
    (norm,) = found.values()
    assert norm.mean == pytest.approx(net.mean.flatten().tolist(), rel=1e-6)
    assert norm.std == pytest.approx(net.std.flatten().tolist(), rel=1e-6)
    given = (x - net.mean) / net.std
    torch.testing.assert_close(without(given), net(x), atol=1e-5, rtol=1e-5)
    assert operators(graph)["conv2d"] == 2


@pytest.mark.parametrize(
    "network",
    [
        Net(lambda net, x: net.layer(x), layer=nn.Conv2d(3, 4, 3, padding=1)).eval(),
        Net(
            lambda net, x: net.layer(net.norm(x)) + x.mean(),
            norm=trained(nn.BatchNorm2d(3)),
            layer=nn.Conv2d(3, 4, 3, padding=1),
        ).eval(),
    ],
    ids=["none", "read_besides"],
)
def test_what_cannot_be_taken_out_stays(network: nn.Module) -> None:
    graph = trace(network, (noise(2, *IMAGES),))
    without, found = take_out_input_norms(graph)
    assert (without, found) == (graph, {})
