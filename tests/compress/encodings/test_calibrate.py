"""The table: which tensors it holds, on which grid, and what calibration data it refuses."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from file_readers import TFLiteFile, run_onnx
from small_networks import NETWORKS, Net, Quantized, network, noise
from torch import Tensor, nn

from edgedl.compress.encodings.affine import affine_for
from edgedl.compress.encodings.calibrate import calibrate, observe, share_encodings
from edgedl.compress.encodings.encodings import Encodings, Range, weight_scales
from edgedl.compress.encodings.observers import BINS
from edgedl.compress.graph.edit import get_tensor
from edgedl.compress.graph.trace import trace
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.runtime.errors import BadInputError


def table(module: nn.Module, x: Tensor, observer: str = "minmax") -> Encodings:
    return calibrate(trace(module.eval(), (x[:2],)), [(x,)], observer)


def values_of(x: Tensor) -> Range:
    return Range(float(x.min()), float(x.max()))


def test_ranges_are_those_of_the_modules_own_tensors() -> None:
    net = Net(
        lambda net, x: net.fc(F.gelu(net.conv(x)).flatten(1)),
        conv=nn.Conv2d(2, 3, 3),
        fc=nn.Linear(48, 4),
    )
    x = noise(16, 2, 6, 6)
    found = table(net, x).activations
    with torch.no_grad():
        conv = net.conv(x)
        expected = {"x": x, "conv2d": conv, "gelu": F.gelu(conv), "linear": net(x)}
    for name, value in expected.items():
        assert found[name].lo == pytest.approx(float(value.min()), rel=1e-5)
        assert found[name].hi == pytest.approx(float(value.max()), rel=1e-5)


def test_network_inputs_keep_the_range_they_were_seen_in() -> None:
    x = torch.cat([noise(500_000, 1), torch.full((1, 1), 12.0)])
    net = Net(lambda _, x: F.leaky_relu(x, 0.5))
    found = table(net, x, "mse").activations
    assert found["x"] == values_of(x)
    assert found["leaky_relu"].hi < found["x"].hi


def test_what_a_number_multiplies_keeps_its_integers() -> None:
    net = Net(lambda _, x: ((0.5 * x.sin()).flatten(1) + 1, -2 * x, torch.cat([2 * x, x], 1)))
    x = noise(50, 4)
    found = table(net, x).activations
    half = Range(found["sin"].lo / 2, found["sin"].hi / 2)
    assert found["mul"] == found["flatten"] == half
    grids = [affine_for(found[name], ORT) for name in ("sin", "mul")]
    assert grids[0].zero_point == grids[1].zero_point
    # The others are turned around, or joined with what has another range.
    assert found["mul_1"] == values_of(-2 * x)
    assert found["mul_2"] == found["cat"]


def test_what_only_moves_has_the_range_of_what_it_moves() -> None:
    net = Net(
        lambda net, x: F.max_pool2d(F.relu(net.conv(x)), 2).permute(0, 2, 3, 1).flatten(1),
        conv=nn.Conv2d(2, 3, 3),
    )
    found = table(net, noise(16, 2, 6, 6)).activations
    moved = ("max_pool2d", "permute", "flatten")
    assert {found[name] for name in moved} == {found["relu"]}
    assert found["relu"].lo == 0.0


def test_an_operator_has_the_range_of_the_activation_fused_into_it() -> None:
    net = Net(lambda net, x: F.relu6(8 * net.a(x).tanh()) + F.relu6(net.b(x)), a=nn.Conv2d(2, 3, 1))
    net.b = nn.Conv2d(2, 3, 1)
    net.b.weight.data *= 30
    found = table(net, noise(16, 2, 6, 6)).activations
    assert found["conv2d_1"] == found["relu6_1"] == Range(0.0, 6.0)
    # A multiplication by a number folds no activation: it keeps its own range.
    assert found["mul"].lo < 0


def test_concats_share_one_union_with_all_they_join() -> None:
    found = network("joined").encodings.activations
    chained = ("relu", "conv2d_1", "cat", "conv2d_2", "cat_1", "conv2d")
    assert len({found[name] for name in chained}) == 1
    own = network("joined").outputs(network("joined").graph)[0]
    assert found["flatten"].hi == pytest.approx(float(own.max()))
    assert found["flatten"] != found["cat"]


def test_the_shared_range_is_the_union_of_what_each_would_have() -> None:
    graph = network("joined").graph.graph
    own = {
        "relu": Range(0.0, 5.0),
        "conv2d_1": Range(-7.0, 1.0),
        "cat": Range(-2.0, 2.0),
        "conv2d_2": Range(-1.0, 6.0),
        "cat_1": Range(-3.0, 3.0),
        "conv2d_3": Range(-1.0, 1.0),
    }
    share_encodings(graph, own)
    for name in ("relu", "conv2d_1", "cat", "conv2d_2", "cat_1", "conv2d"):
        assert own[name] == Range(-7.0, 6.0)
    assert own["conv2d_3"] == own["flatten"] == Range(-1.0, 1.0)


def test_constant_operands_have_encodings() -> None:
    k = noise(1, 3, 1, 1, seed=2)
    net = Net(
        lambda net, x: F.relu(net.conv(x)) * net.k + net.k, conv=nn.Conv2d(2, 3, 1), k=nn.Buffer(k)
    )
    assert values_of(k) in table(net, noise(4, 2, 5, 5)).activations.values()


def test_weights_are_covered_per_output_channel() -> None:
    for name in NETWORKS:
        net = network(name)
        for path, amax in net.encodings.weights.items():
            weight = get_tensor(net.graph, path).numpy()
            expected = np.abs(weight.reshape(len(weight), -1)).max(1)
            np.testing.assert_array_equal(amax.numpy(), expected)


def test_dead_channels_have_a_step_that_holds_their_bias() -> None:
    conv = nn.Conv2d(2, 4, 1)
    conv.weight.data[1:3] = 0
    conv.bias.data[:] = torch.tensor([0.1, 0.0, 2.0, 1e6])
    found = table(conv, noise(8, 2, 5, 5))
    (amax,) = found.weights.values()
    live = conv.weight.detach()[[0, 3]].abs().amax((1, 2, 3))
    assert amax[0] == live[0]
    assert amax[1] >= float(live.max()) * 0.99e-4
    input_scale = affine_for(next(iter(found.activations.values())), TFLITE).scale
    integers = conv.bias.double() / (weight_scales(amax).double() * input_scale)
    assert integers.abs().max() < 2**31


def test_a_layer_of_zeros_has_steps() -> None:
    conv = nn.Conv2d(2, 4, 1)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    (amax,) = table(conv, noise(8, 2, 5, 5)).weights.values()
    assert (weight_scales(amax) > 0).all()


def test_the_table_does_not_depend_on_batches_or_their_order() -> None:
    net = network("operators")
    (x,) = net.inputs
    batches = [(part,) for part in x.split(16)]
    first = calibrate(net.graph, batches, "minmax")
    random.Random(3).shuffle(batches)
    second = calibrate(net.graph, batches, "minmax")
    for name, expected in net.encodings.activations.items():
        for found in (first.activations[name], second.activations[name]):
            assert found.lo == pytest.approx(expected.lo, rel=1e-5)
            assert found.hi == pytest.approx(expected.hi, rel=1e-5)


def test_memory_does_not_depend_on_the_number_of_samples() -> None:
    net = network("operators")
    (x,) = net.inputs

    def size(count: int) -> int:
        histograms = observe(net.graph, ((x,) for _ in range(count)))
        return sum(h.counts.numel() for h in histograms.values())

    assert size(1) == size(4)
    assert size(1) % BINS == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_samples_that_are_not_finite_are_refused(value: float) -> None:
    graph = trace(nn.Linear(3, 2), (noise(2, 3),))
    x = noise(4, 3)
    x[2, 1] = value
    with pytest.raises(BadInputError, match=r"not finite .* in tensor 'input_1'"):
        calibrate(graph, [(noise(4, 3),), (x,)], "mse")


def test_overflow_inside_the_network_names_the_tensor() -> None:
    net = Net(lambda _, x: torch.exp(x) * 0.0)
    graph = trace(net, (noise(2, 3),))
    with pytest.raises(BadInputError, match="'exp'"):
        calibrate(graph, [(torch.full((2, 3), 200.0),)], "mse")


def test_no_samples_are_refused() -> None:
    graph = trace(nn.Linear(3, 2), (noise(2, 3),))
    with pytest.raises(BadInputError, match="no calibration samples"):
        calibrate(graph, [], "mse")


@pytest.mark.parametrize(
    ("function", "scale", "zero_points"),
    [
        (torch.sigmoid, 1 / 256, ((ORT, 0), (TFLITE, -128))),
        (lambda x: torch.softmax(x, 1), 1 / 256, ((ORT, 0), (TFLITE, -128))),
        (torch.tanh, 1 / 128, ((ORT, 128), (TFLITE, 0))),
    ],
)
def test_kernels_with_one_grid_get_it_whatever_was_seen(function, scale, zero_points) -> None:
    encodings = table(Net(lambda _, x: function(x)), noise(8, 5) / 10)
    (found,) = [r for name, r in encodings.activations.items() if name != "x"]
    for target, zero_point in zero_points:
        affine = affine_for(found, target)
        assert (affine.scale, affine.zero_point) == (scale, zero_point)


@pytest.mark.parametrize("seed", range(20))
def test_tables_of_embeddings_have_no_zero_point(seed: int) -> None:
    torch.manual_seed(seed)
    net = Net(lambda net, x: net.words(x.long()), words=nn.Embedding(9, 4))
    with torch.no_grad():
        net.words.weight *= 10.0 ** (seed - 10)
    graph = trace(net.eval(), (torch.ones(2, 3),))
    table = calibrate(graph, [(torch.ones(2, 3),)], "minmax")
    (name,) = [n.name for n in graph.graph.nodes if n.op == "get_attr"]
    grid = affine_for(table.activations[name], TFLITE)
    assert grid.zero_point == 0
    assert grid.scale * 127 >= 0.999999 * float(net.words.weight.detach().abs().max())


@pytest.mark.slow
def test_a_relu_that_never_fires_has_room_for_what_it_reads() -> None:
    """Its file must load, and a sample that wakes it must not be cut off."""
    net = Net(
        lambda m, x: m.last(F.relu(m.first(x))),
        first=nn.Conv2d(3, 4, 3),
        last=nn.Conv2d(4, 2, 1),
    ).eval()
    with torch.no_grad():
        net.first.bias.fill_(-10.0)
    made = Quantized(net, (noise(8, 3, 6, 6),))
    largest = float(net.first(made.inputs[0]).detach().abs().max())
    found = made.encodings.activations["relu"]
    assert (found.lo, found.hi) == (0.0, pytest.approx(largest, rel=1e-3))
    (expected,) = made.outputs(made.graph)
    for found in (TFLiteFile(made.tflite).run(made.arrays), run_onnx(made.onnx, made.arrays)):
        assert np.abs(found[0] - expected).max() <= made.steps[0]


def test_what_was_always_zero_may_have_either_sign() -> None:
    net = Net(lambda m, x: m.last(x - m.first(x)), first=nn.Linear(4, 4), last=nn.Linear(4, 2))
    with torch.no_grad():
        net.first.weight.copy_(torch.eye(4))
        net.first.bias.zero_()
    found = table(net, noise(16, 4)).activations
    assert found["sub"].lo == -found["sub"].hi < -1.0
