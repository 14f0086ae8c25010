"""What is computed only in part is what computing everything gives, to the last bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_networks import NETWORKS, Net, Quantized, network, noise
from torch import nn

from edgedl.compress.encodings.quantized_layers import quantized_layers
from edgedl.compress.encodings.simulate import Simulation
from edgedl.compress.quantize.search.replay import outputs, rerun, run, switchable
from edgedl.compress.state import ModelState


def equal(found, expected) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def start_of(layer):
    return layer.nodes | {user for node in layer.nodes for user in node.users}


@pytest.mark.parametrize("name", NETWORKS)
def test_switching_one_layer_on_or_off_from_there_on(name):
    net = network(name)
    simulation = Simulation(net.graph, net.encodings)
    layers = quantized_layers(net.graph, net.encodings)
    everything = {node for layer in layers for node in layer.nodes}
    floats, integers = run(simulation, net.inputs, active=()), run(simulation, net.inputs)
    equal(outputs(integers), simulation(*net.inputs))
    for layer in layers:
        others = everything - layer.nodes
        only = rerun(simulation, floats, start_of(layer), layer.nodes)
        equal(only, simulation(*net.inputs, active=layer.nodes))
        all_but = rerun(simulation, integers, start_of(layer), others)
        equal(all_but, simulation(*net.inputs, active=others))
    equal(outputs(run(simulation, net.inputs, everything)), simulation(*net.inputs))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_layer_kept_in_float_from_there_on(name):
    net = network(name)
    simulation = Simulation(net.graph, net.encodings)
    integers = run(simulation, net.inputs)
    for layer in quantized_layers(net.graph, net.encodings)[1:]:
        kept = replace(net.encodings, float_nodes=frozenset({layer.node.name}))
        expected = Simulation(net.graph, kept)(*net.inputs)
        float_one = simulation.keeping_float({layer.node.name})
        equal(float_one(*net.inputs), expected)
        equal(rerun(float_one, integers, start_of(layer)), expected)


def test_keeping_float_adds_up_and_leaves_the_first_simulation_alone():
    net = network("operators")
    simulation = Simulation(net.graph, net.encodings)
    before = simulation(*net.inputs)
    first, second = (n.name for n in simulation.weighted[:2])
    both = simulation.keeping_float({first}).keeping_float({second})
    kept = replace(net.encodings, float_nodes=frozenset({first, second}))
    equal(both(*net.inputs), Simulation(net.graph, kept)(*net.inputs))
    equal(simulation(*net.inputs), before)
    assert len(both.weighted) == len(simulation.weighted) - 2


def test_operators_that_work_in_place_leave_the_values_alone():
    def forward(net, x):
        h = F.relu(net.a(x), inplace=True)
        h = net.b(h)
        h += x
        return net.c(F.relu_(h))

    layers = {name: nn.Conv2d(3, 3, 1) for name in "abc"}
    net = Quantized(Net(forward, **layers), (noise(8, 3, 4, 4),))
    simulation = Simulation(net.graph, net.encodings)
    floats = run(simulation, net.inputs, active=())
    kept = {node: value.clone() for node, value in floats.items() if node.op != "output"}
    with torch.no_grad():
        equal(outputs(floats), [net.graph(*net.inputs)])
    for layer in quantized_layers(net.graph, net.encodings):
        found = rerun(simulation, floats, start_of(layer), layer.nodes)
        equal(found, simulation(*net.inputs, active=layer.nodes))
    for node, value in kept.items():
        assert torch.equal(floats[node], value), node


def test_a_switchable_network_is_the_float_one_or_the_corrected_one(int8_state: ModelState):
    corrected = int8_state.quantized
    (batch,) = int8_state.subject.task.batches("test", 1000)
    x = torch.tensor(batch.inputs[0])
    simulation = switchable(int8_state.graph, corrected)
    with torch.no_grad():
        equal(simulation(x, active=()), [int8_state.graph(x)])
    expected = Simulation(corrected.graph, corrected.encodings)(x)
    equal(simulation(x), expected)
    plain = Simulation(
        int8_state.graph, replace(corrected.encodings, weights=simulation._encodings.weights)
    )(x)
    assert not torch.equal(plain[0], expected[0])
