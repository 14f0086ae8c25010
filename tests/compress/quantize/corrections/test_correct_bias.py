"""Corrected biases against means over all the data, and the closed form against Monte Carlo."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_networks import Net, Quantized, noise
from torch import nn
from uneven_networks import SHAPE, chain, decibels, state_of

from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.encodings.simulate import Simulation
from edgedl.compress.graph.edit import get_tensor
from edgedl.compress.quantize.corrections.channel_statistics import observe_channels
from edgedl.compress.quantize.corrections.correct_bias import (
    CorrectBias,
    clipped_normal_mean,
    correct_mean_output,
    own_shift,
)
from edgedl.compress.quantize.corrections.equalize import Equalize
from edgedl.compress.quantize.corrections.layerwise import Layer, correct_layers
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.state import ModelState
from edgedl.compress.targets.named import TENSORRT
from edgedl.runtime.errors import BadInputError


@pytest.mark.parametrize("bounds", [(0, math.inf), (0, 6), (-1, 1), (-math.inf, math.inf)])
@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (2.0, 3.0), (-1.5, 0.7), (7.0, 2.0)])
def test_clipped_normal_mean_is_monte_carlos(bounds, mean: float, deviation: float) -> None:
    drawn = np.random.default_rng(0).normal(mean, deviation, 1_000_000)
    expected = np.clip(drawn, *bounds)
    found = clipped_normal_mean(
        torch.tensor([mean]).double(), torch.tensor([deviation]).double(), *bounds
    )
    assert float(found) == pytest.approx(expected.mean(), abs=5 * expected.std() / 1000)


def test_a_channel_that_never_varies_is_clipped_as_a_number() -> None:
    means = torch.tensor([-2.0, 0.5, 9.0]).double()
    found = clipped_normal_mean(means, torch.zeros(3).double(), 0.0, 6.0)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.5, 6.0]).double())


def outputs(net: Quantized, network: QuantizedNetwork) -> np.ndarray:
    return Simulation(network.graph, network.encodings, TENSORRT)(*net.inputs)[0].numpy()


def coarse(net: Quantized) -> QuantizedNetwork:
    """Return the network on weight grids 16 times too coarse."""
    wide = {path: amax * 16 for path, amax in net.encodings.weights.items()}
    table = net.encodings
    return QuantizedNetwork(net.graph, type(table)(table.activations, wide, table.float_nodes))


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Linear(6, 5), (40, 6)),
        (nn.Conv2d(4, 6, 3, groups=2), (20, 4, 6, 6)),
        (nn.Conv2d(4, 4, 3, groups=4), (20, 4, 6, 6)),
    ],
)
def test_mean_outputs_become_the_float_layers(module, shape) -> None:
    net = Quantized(Net(lambda net, x: net.layer(x), layer=module), (noise(*shape) + 1,))
    rough = coarse(net)
    corrected = correct_layers(net.graph, rough.encodings, [net.inputs], correct_mean_output)
    with torch.no_grad():
        exact = net.module(*net.inputs)
    axes = [0, *range(2, exact.ndim)]
    step = 0.0
    shifts = []
    for network in (rough, corrected):
        simulation = Simulation(network.graph, network.encodings)
        (node,) = simulation.weighted
        step = float(simulation.affine(node.args[0], node).scale * simulation.scales[node].max())
        # What the operator computes, before that is rounded to the grid of the output.
        found = simulation.compute(node, {node.args[0]: net.inputs[0]})
        shifts.append(float((found - exact).mean(axes).abs().max()))
    assert shifts[1] < 0.51 * step + 1e-5
    assert shifts[0] > 10 * shifts[1]


@pytest.mark.parametrize("method", ["empirical", "analytic"])
def test_only_biases_change(method) -> None:
    state = QuantizeStatic(samples=32).apply(state_of(chain()))
    found = CorrectBias(method, samples=32).apply(state).quantized
    assert found.encodings.activations == state.quantized.encodings.activations
    nodes = {n.name: n for n in state.quantized.graph.graph.nodes}
    moved = []
    for node in found.graph.graph.nodes:
        if node.name.startswith(("conv2d", "linear")) and node.op == "call_function":
            old = [get_tensor(state.graph, str(a.target)) for a in nodes[node.name].args[1:3]]
            new = [get_tensor(found.graph, str(a.target)) for a in node.args[1:3]]
            assert torch.equal(old[0], new[0])
            moved.append(bool((old[1] != new[1]).any()))
    assert moved
    assert all(moved)


def test_the_analytic_shift_is_a_loop_over_channels_and_taps() -> None:
    net = Quantized(
        Net(
            lambda net, x: net.b(F.relu6(net.a(x))),
            a=nn.Conv2d(3, 4, 3),
            b=nn.Conv2d(4, 6, 3, groups=2),
        ),
        (noise(20, 3, 8, 8),),
    )
    rough = coarse(net)
    correct = own_shift(rough, [net.inputs])
    simulation = Simulation(net.graph, rough.encodings)
    first, second = simulation.weighted
    layer = Layer(
        second,
        simulation.weight(second),
        simulation.bias(second),
        simulation.scales[second],
        [],
        [],
    )
    weight, bias = correct(layer)
    assert torch.equal(weight, layer.weight)
    seen = observe_channels(net.graph, [net.inputs], {first: 1})[first]
    rounded = simulation._parameters[second][0]
    drawn = np.random.default_rng(0)
    for out in range(6):
        shift = 0.0
        for i in range(2):
            channel = 2 * (out // 3) + i
            normal = drawn.normal(seen.mean[channel], seen.deviation[channel], 400_000)
            mean = np.clip(normal, 0, 6).mean()
            for tap in (rounded - layer.weight)[out, i].flatten().tolist():
                shift += tap * mean
        assert float(layer.bias[out] - bias[out]) == pytest.approx(shift, abs=2e-3)


def test_a_layer_without_a_bias_is_left_alone() -> None:
    x = noise(40, 6)
    net = Quantized(Net(lambda net, x: net.fc(x), fc=nn.Linear(6, 3, bias=False)), (x,))
    quantized = QuantizedNetwork(net.graph, net.encodings)
    for correct in (correct_mean_output, own_shift(quantized, [(x,)])):
        corrected = correct_layers(net.graph, net.encodings, [(x,)], correct)
        np.testing.assert_array_equal(outputs(net, corrected), outputs(net, quantized))


@pytest.mark.parametrize("method", ["empirical", "analytic"])
def test_a_whole_network_loses_its_shift_and_gains_decibels(method) -> None:
    net = chain()
    static = QuantizeStatic(samples=48).apply(Equalize().apply(state_of(net)))
    table = static.quantized.encodings
    wide = {path: amax * 16 for path, amax in table.weights.items()}
    rough = QuantizedNetwork(static.graph, dataclasses.replace(table, weights=wide))
    before = dataclasses.replace(static, quantized=rough)
    after = CorrectBias(method).apply(before)
    x = noise(48, *SHAPE, seed=10)
    with torch.no_grad():
        exact = net(x)
    shifts = [
        float((Simulation(n.graph, n.encodings)(x)[0] - exact).mean(0).norm())
        for n in (before.quantized, after.quantized)
    ]
    assert shifts[1] < 0.5 * shifts[0]
    assert decibels(after, net) > decibels(before, net)


def test_it_needs_a_quantized_network(float_state: ModelState) -> None:
    with pytest.raises(BadInputError, match="correct_bias works on a quantized network"):
        CorrectBias().apply(float_state)
