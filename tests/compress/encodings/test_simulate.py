"""The simulation computes what the emitted graph computes, and what is switched off is float."""

import numpy as np
import pytest
import torch
from small_networks import NETWORKS, network, noise
from torch import Tensor

from edgedl.compress.encodings.affine import affine_for
from edgedl.compress.encodings.encodings import Range
from edgedl.compress.encodings.simulate import Simulation, fake_quantize
from edgedl.compress.graph.memory_layout import in_fast_layout
from edgedl.compress.targets.named import ORT
from edgedl.compress.targets.target import TARGETS


def outputs(simulation: Simulation, inputs: tuple[Tensor, ...], **options) -> list[np.ndarray]:
    # As ``run_graph`` lays them: the last bits of float layers depend on it.
    inputs = in_fast_layout(simulation.graph, inputs)
    return [y.numpy() for y in simulation(*inputs, **options)]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_output_is_the_emitted_graphs_to_the_last_bit(name, target):
    net = network(name)
    found = outputs(Simulation(net.graph, net.encodings, target), net.inputs)
    for a, b in zip(found, net.outputs(net.emitted(target)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_active_is_the_float_network(name):
    net = network(name)
    found = outputs(Simulation(net.graph, net.encodings), net.inputs, active=())
    for a, b in zip(found, net.outputs(net.graph), strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_active_weight_changes_the_output_and_all_together_more():
    net = network("operators")
    simulation = Simulation(net.graph, net.encodings)
    (exact,) = outputs(simulation, net.inputs, active=())
    errors = []
    for node in simulation.weighted:
        (found,) = outputs(simulation, net.inputs, active={node})
        errors.append(np.abs(found - exact).mean())
    (all_of_it,) = outputs(simulation, net.inputs)
    assert min(errors) > 0
    assert np.abs(all_of_it - exact).mean() > max(errors)


def test_a_new_weight_and_bias_are_rounded_and_used():
    net = network("operators")
    simulation = Simulation(net.graph, net.encodings)
    node = simulation.weighted[-1]
    zeros = torch.zeros_like(simulation.weight(node))
    bias = torch.full_like(simulation.bias(node), 0.25)
    simulation.set_weight(node, zeros, bias)
    (found,) = outputs(simulation, net.inputs)
    step = affine_for(net.encodings.activations[node.args[0].name], ORT).scale
    tolerance = float(step * simulation.scales[node].max())
    assert np.ptp(found) <= net.steps[0]
    np.testing.assert_allclose(found, 0.25, atol=tolerance + net.steps[0])


@pytest.mark.parametrize("target", TARGETS)
def test_fake_quantize_is_quantize_and_dequantize(target):
    affine = affine_for(Range(-0.7, 2.1), target)
    x = noise(1001)
    expected = affine.dequantize(affine.quantize(x.numpy()))
    # Where a value lies half-way, torch multiplies by 1/scale and numpy divides: one step.
    difference = np.abs(fake_quantize(x, affine).numpy() - expected)
    assert (difference > 1e-6).sum() <= 1
    assert difference.max() <= affine.scale * 1.001
