"""The table as parameters: what shares one, what stays, and what reads back to the last bit."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from small_networks import NETWORKS, Net, Quantized, network, noise
from torch import nn

from edgedl.compress.encodings.affine import SMALLEST_SCALE, affine_for, range_of
from edgedl.compress.encodings.encodings import weight_scales
from edgedl.compress.quantize.qat.learned_ranges import LearnedRanges
from edgedl.compress.targets.named import ORT, TENSORRT, TFLITE

SCALES = st.floats(float(np.float32(1e-10)), 1e6, width=32)


@given(SCALES | st.just(SMALLEST_SCALE), st.integers(0, 255))
def test_a_grid_survives_the_table_to_the_last_bit(scale: float, zero_point: int) -> None:
    values = range_of(scale, zero_point)
    assert values.lo <= 0 <= values.hi
    ort, tflite = affine_for(values, ORT), affine_for(values, TFLITE)
    assert (ort.scale, ort.zero_point) == (scale, zero_point)
    assert (tflite.scale, tflite.zero_point) == (scale, zero_point - 128)
    largest = max(zero_point, 255 - zero_point) * scale
    assert affine_for(values, TENSORRT).scale == np.float32(max(largest, 1e-8) / 127)


def learned(net: Quantized, learn: str = "scales_and_offsets") -> LearnedRanges:
    return LearnedRanges(net.graph.graph, net.encodings, learn)


def move(ranges: LearnedRanges, size: float = 0.3) -> LearnedRanges:
    with torch.no_grad():
        for parameter in ranges.parameters():
            parameter.add_(size * torch.randn(parameter.shape))
    return ranges


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("learn", ["nothing", "scales", "scales_and_offsets"])
def test_untrained_every_grid_is_the_calibrated_one(name: str, learn: str) -> None:
    net = network(name)
    ranges = learned(net, learn)
    found = ranges.activations()
    assert found.keys() == net.encodings.activations.keys()
    for tensor, before in net.encodings.activations.items():
        for target in (ORT, TFLITE):
            assert affine_for(found[tensor], target) == affine_for(before, target)
    for path, amax in net.encodings.weights.items():
        assert torch.equal(weight_scales(ranges.amax(path)), weight_scales(amax))
    if learn == "nothing":
        assert found == net.encodings.activations


@pytest.mark.parametrize("name", NETWORKS)
def test_trained_the_table_holds_the_very_grids_that_were_trained(name: str) -> None:
    net = network(name)
    ranges = move(learned(net))
    found = ranges.activations()
    scales, zeros = ranges.scales().tolist(), ranges.zero_points().tolist()
    for tensor, index in ranges.grids.items():
        affine = affine_for(found[tensor], ORT)
        assert (affine.scale, affine.zero_point) == (scales[index], zeros[index])
    changed = [t for t in found if found[t] != net.encodings.activations[t]]
    assert len(changed) > len(found) // 2


@pytest.mark.parametrize("name", NETWORKS)
def test_what_has_one_range_in_the_table_has_one_after_training(name: str) -> None:
    graph = network(name).graph.graph
    found = move(learned(network(name))).activations()
    for node in graph.nodes:
        if node.name not in found:
            continue
        if node.target in (torch.ops.aten.flatten.using_ints, torch.ops.aten.max_pool2d.default):
            assert found[node.name] == found[node.args[0].name]
        if node.target is torch.ops.aten.cat.default:
            assert {found[n.name] for n in node.args[0]} == {found[node.name]}
        if node.target is torch.ops.aten.relu.default and len(node.args[0].users) == 1:
            assert found[node.name] == found[node.args[0].name]


def test_inputs_constants_and_kernels_with_one_grid_keep_theirs() -> None:
    def forward(net: Net, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(F.relu(net.conv(x)) + net.table) * torch.sigmoid(net.conv(x))

    constant = nn.Buffer(noise(1, 4, 1, 1))
    net = Quantized(Net(forward, conv=nn.Conv2d(3, 4, 1), table=constant), (noise(9, 3, 5, 5),))
    found, before = move(learned(net)).activations(), net.encodings.activations
    kept = {"x", "table", "tanh", "sigmoid"}
    assert kept <= before.keys()
    assert {name for name in before if found[name] == before[name]} == kept


def test_a_grid_that_starts_at_zero_goes_on_doing_so() -> None:
    net = Quantized(
        Net(lambda n, x: n.b(F.relu(n.a(x))), a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 1)),
        (noise(9, 3, 5, 5),),
    )
    ranges = move(learned(net), 0.2)
    found, before = ranges.activations(), net.encodings.activations
    assert found["relu"].lo == before["relu"].lo == 0.0
    assert found["relu"].hi != before["relu"].hi
    zeros = [affine_for(table["conv2d_1"], ORT).zero_point for table in (found, before)]
    assert zeros[0] != zeros[1]
    frozen = move(learned(net, "scales"), 0.2).activations()
    assert affine_for(frozen["conv2d_1"], ORT).zero_point == zeros[1]


def test_parameters_that_are_not_learned_need_no_gradient() -> None:
    net = network("operators")
    counts = {
        learn: sum(p.requires_grad for p in learned(net, learn).parameters())
        for learn in ("nothing", "scales", "scales_and_offsets")
    }
    weights = len(net.encodings.weights)
    assert counts == {"nothing": 0, "scales": 1 + weights, "scales_and_offsets": 2 + weights}
