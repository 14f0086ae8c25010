"""Rounding with feedback, against every rounding there is and against the nearest one."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from small_networks import Net, Quantized, network, noise
from torch import nn

from edgedl.compress.encodings.encodings import per_channel, quantize_weight
from edgedl.compress.encodings.grouped import GroupedWeight, group_scales, round_to_groups
from edgedl.compress.encodings.simulate import Simulation
from edgedl.compress.quantize.corrections import rounding
from edgedl.compress.quantize.corrections.layerwise import Layer, correct_layers
from edgedl.compress.quantize.corrections.rounding import (
    round_groups_with_feedback,
    round_layer,
    round_to_nearest,
    round_with_feedback,
)
from edgedl.compress.subject.outputs import as_tuple


def correlated_moments(size: int, seed: int) -> torch.Tensor:
    """Return second moments of inputs that mostly go up and down together: float64 [1, K, K]."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(1, 500, generator=generator, dtype=torch.float64)
    own = torch.randn(size, 500, generator=generator, dtype=torch.float64)
    x = common + 0.3 * own
    return (x @ x.T / 500)[None]


def output_error(difference: torch.Tensor, moments: torch.Tensor) -> float:
    """Return the mean squared error of the output that a change of weights makes."""
    return float((difference @ moments @ difference.transpose(1, 2)).diagonal(dim1=1, dim2=2).sum())


@pytest.mark.parametrize("seed", range(20))
def test_feedback_is_near_the_best_of_all_roundings(seed):
    size, step = 5, torch.tensor([[[0.25]]], dtype=torch.float64)
    moments = correlated_moments(size, seed)
    weight = noise(1, 1, size, seed=seed + 100).double()
    down = (weight / step).floor()
    best = min(
        output_error((down + torch.tensor(ups)) * step - weight, moments)
        for ups in product((0.0, 1.0), repeat=size)
    )
    found = output_error(round_with_feedback(weight, moments, step) - weight, moments)
    nearest = output_error(round_to_nearest(weight, step) - weight, moments)
    assert best <= found * 1.0000001
    assert found <= max(3 * best, 0.5 * nearest)


def test_inputs_without_correlation_are_rounded_to_nearest():
    weight, step = noise(2, 3, 7).double(), torch.full((2, 3, 1), 0.1, dtype=torch.float64)
    moments = torch.diag_embed(torch.rand(2, 7, dtype=torch.float64) + 0.5)
    found = round_with_feedback(weight, moments, step)
    torch.testing.assert_close(found, round_to_nearest(weight, step))


def test_blocks_of_inputs_change_nothing(monkeypatch):
    weight, step = noise(1, 3, 40).double(), torch.full((1, 3, 1), 0.1, dtype=torch.float64)
    moments = correlated_moments(40, 0)
    expected = round_with_feedback(weight, moments, step)
    monkeypatch.setattr(rounding, "BLOCK", 7)
    torch.testing.assert_close(round_with_feedback(weight, moments, step), expected)


def test_groups_are_rounded_each_by_itself():
    step = torch.full((2, 3, 1), 0.1, dtype=torch.float64)
    weight = noise(2, 3, 6).double()
    moments = torch.cat([correlated_moments(6, 0), correlated_moments(6, 1)])
    found = round_with_feedback(weight, moments, step)
    for group in range(2):
        part = slice(group, group + 1)
        alone = round_with_feedback(weight[part], moments[part], step[part])
        torch.testing.assert_close(found[part], alone)


def coarse(module: nn.Module, x: torch.Tensor, factor: float = 16) -> tuple[Quantized, Layer]:
    """Return a one-layer network and its layer, on a weight grid ``factor`` times too coarse."""
    net = Quantized(Net(lambda net, x: net.layer(x), layer=module), (x,))
    simulation = Simulation(net.graph, net.encodings)
    (node,) = simulation.weighted
    layer = Layer(
        node, simulation.weight(node), simulation.bias(node), simulation.scales[node] * factor,
        [x], [x],
    )  # fmt: skip
    return net, layer


MODULES = {
    "conv": lambda bias: nn.Conv2d(4, 6, 3, padding=1, bias=bias),
    "depthwise": lambda bias: nn.Conv2d(4, 4, 3, groups=4, bias=bias),
    "linear": lambda bias: nn.Linear(6, 5, bias=bias),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", MODULES)
def test_a_rounded_layer_is_on_its_grid_and_nearer_than_the_nearest_weights(name, bias):
    module = MODULES[name](bias)
    shape = (64, 6) if name == "linear" else (16, 4, 6, 6)
    x = noise(*shape[:-1], 1) + 0.3 * noise(*shape, seed=1) + 2
    _, layer = coarse(module, x)
    weight, new_bias = round_layer(layer)
    step = per_channel(layer.scales, 0, weight.ndim)
    torch.testing.assert_close(quantize_weight(weight, layer.scales, 0) * step, weight)

    def outputs(weight, bias):
        functional = nn.functional.linear if name == "linear" else nn.functional.conv2d
        options = {} if name == "linear" else {"padding": module.padding, "groups": module.groups}
        with torch.no_grad():
            return functional(x, weight, bias, **options)

    exact = outputs(module.weight, module.bias)
    nearest = outputs((layer.weight / step).round() * step, layer.bias)
    found = outputs(weight, new_bias)
    assert (new_bias is None) == (not bias)
    assert (found - exact).square().mean() < 0.6 * (nearest - exact).square().mean()
    if bias and name != "conv":
        axes = [i for i in range(exact.ndim) if i != 1]
        np.testing.assert_allclose(found.mean(axes), exact.mean(axes), atol=1e-4)


def test_a_layer_too_large_for_its_moments_is_rounded_to_nearest(monkeypatch):
    monkeypatch.setattr(rounding, "LARGEST", 5)
    _, layer = coarse(nn.Linear(6, 5), noise(64, 6) + 2)
    weight, bias = round_layer(layer)
    step = layer.scales[:, None].double()
    torch.testing.assert_close(weight, round_to_nearest(layer.weight.double(), step).float())
    shift = (layer.weight - weight) @ layer.inputs[0].mean(0)
    torch.testing.assert_close(bias, layer.bias + shift, atol=1e-5, rtol=1e-5)


def test_a_whole_network_comes_closer_to_its_float_self():
    whole = network("operators")
    net = Quantized(whole.module, whole.inputs)
    before = Simulation(net.graph, net.encodings)
    corrected = correct_layers(net.graph, net.encodings, [net.inputs], round_layer)
    after = Simulation(corrected.graph, corrected.encodings)
    with torch.no_grad():
        (exact,) = as_tuple(net.graph(*net.inputs))
    errors = [float((s(*net.inputs)[0] - exact).square().mean()) for s in (before, after)]
    assert errors[1] < errors[0]


def test_the_given_network_stays_and_every_layer_is_seen_once():
    net = network("joined")
    weights = {n: t.clone() for n, t in net.graph.named_buffers()}
    weights |= {n: t.clone() for n, t in net.graph.named_parameters()}
    seen = []

    def double(layer: Layer):
        seen.append(layer.node.name)
        return layer.weight * 2, layer.bias

    corrected = correct_layers(net.graph, net.encodings, [net.inputs], double)
    assert seen == [n.name for n in Simulation(net.graph, net.encodings).weighted]
    for name, tensor in [*net.graph.named_buffers(), *net.graph.named_parameters()]:
        torch.testing.assert_close(tensor, weights[name], atol=0, rtol=0)
    assert corrected.encodings.activations == net.encodings.activations
    assert len(corrected.encodings.weights) == len(seen)


def test_a_layer_sees_what_the_corrected_layers_before_it_compute():
    net = network("joined")
    inputs = {}

    def erase(layer: Layer):
        inputs[layer.node.name] = (layer.float_inputs[0], layer.inputs[0])
        return torch.zeros_like(layer.weight), torch.zeros_like(layer.bias)

    correct_layers(net.graph, net.encodings, [net.inputs], erase)
    first, *_, last = inputs
    assert torch.any(inputs[first][1] != 0)
    assert torch.any(inputs[last][0] != 0)
    assert not torch.any(inputs[last][1])


def test_layers_kept_in_float_are_left_alone():
    net = network("operators")
    simulation = Simulation(net.graph, net.encodings)
    own = [n.name for n in simulation.weighted if not simulation.shares_weight(n)]
    kept = own[1]
    encodings = replace(net.encodings, float_nodes=frozenset({kept}))
    seen = []

    def note(layer: Layer):
        seen.append(layer.node.name)
        return layer.weight, layer.bias

    correct_layers(net.graph, encodings, [net.inputs], note)
    assert seen == [name for name in own if name != kept]


def naive_gptq(weight: np.ndarray, hessian: np.ndarray, step: np.ndarray, qmax: int) -> np.ndarray:
    """Return integers rounded input by input, the inverse of what is left updated each time.

    Source: Frantar et al., "Optimal brain compression", 2022, equations 3 and 4, which GPTQ's
    Cholesky form computes in one go.
    """
    work, integers = weight.astype(np.float64).copy(), np.zeros(weight.shape, np.int8)
    inverse = np.linalg.inv(hessian)
    for k in np.argsort(-np.diag(hessian), kind="stable"):
        for row in range(len(work)):
            q = np.clip(np.rint(work[row, k] / step[row, k]), -qmax, qmax)
            integers[row, k] = q
            error = (work[row, k] - q * step[row, k]) / inverse[k, k]
            work[row] -= error * inverse[:, k]
        inverse = inverse - np.outer(inverse[:, k], inverse[k]) / inverse[k, k]
        inverse[k, k] = 1
    return integers


@pytest.mark.parametrize(("bits", "group_size"), [(4, 8), (4, 24), (8, 12), (4, 4)])
@pytest.mark.parametrize("seed", range(3))
def test_groups_with_feedback_are_those_of_the_naive_form(bits, group_size, seed):
    weight = noise(5, 24, seed=seed)
    moments = correlated_moments(24, seed)[0]
    scales = group_scales(weight, group_size, bits, "minmax")
    found = round_groups_with_feedback(weight, moments, scales, bits)
    damped = moments.numpy() + rounding.DAMPING * np.diag(moments.numpy()).mean() * np.eye(24)
    step = np.repeat(scales.numpy().astype(np.float64), group_size, axis=1)
    expected = naive_gptq(weight.numpy(), damped, step, 2 ** (bits - 1) - 1)
    assert np.array_equal(found.numpy(), expected)


@pytest.mark.parametrize("group_size", [8, 32])
def test_feedback_lowers_the_output_error_of_correlated_inputs(group_size):
    weight = noise(16, 32)
    moments = correlated_moments(32, 1)
    scales = group_scales(weight, group_size, 4, "mse")
    nearest = round_to_groups(weight, scales, 4)
    found = GroupedWeight(round_groups_with_feedback(weight, moments[0], scales, 4), scales, 4)
    errors = [
        output_error((w.dequantized() - weight).double()[None], moments) for w in (nearest, found)
    ]
    assert errors[1] < 0.5 * errors[0]
    assert (nearest.dequantized() - weight).norm() < (found.dequantized() - weight).norm()
