"""Spiking neurons against loops over time, and the network that is made of them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgedl.models.spiking import IntegrateAndFire, Spike, SpikingNetwork

currents = st.lists(st.sampled_from([-0.75, 0.0, 0.25, 0.5, 1.0, 1.75]), min_size=1, max_size=9)


@given(currents=currents)
def test_a_neuron_integrates_fires_and_loses_the_threshold(currents: list[float]) -> None:
    potential, expected = 0.0, []
    for current in currents:
        potential += current
        spike = 1.0 if potential >= 1.0 else 0.0
        potential -= spike
        expected.append(spike)
    given_currents = [torch.tensor([current]) for current in currents]
    for training in (True, False):
        found = IntegrateAndFire().train(training)(given_currents)
        assert [float(s) for s in found] == expected


def test_a_constant_current_fires_at_its_rate() -> None:
    spikes = IntegrateAndFire().eval()([torch.tensor([0.25, 0.5, 1.0, 2.0, -1.0])] * 8)
    rates = torch.stack(spikes).mean(0)
    assert rates.tolist() == [0.25, 0.5, 1.0, 1.0, 0.0]


def test_the_surrogate_is_the_derivative_of_its_arctangent() -> None:
    x = torch.linspace(-2, 2, 41, dtype=torch.float64, requires_grad=True)
    Spike.apply(x).sum().backward()
    y = x.detach().clone().requires_grad_()
    (torch.atan(torch.pi * y) / torch.pi).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


def test_every_layer_learns_through_the_spikes() -> None:
    torch.manual_seed(0)
    net = SpikingNetwork(channels=(4, 8), hidden=16)
    net(torch.rand(8, 1, 28, 28)).sum().backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in net.parameters() if p.ndim > 1)


def test_training_and_evaluation_compute_the_same() -> None:
    torch.manual_seed(0)
    net = SpikingNetwork(channels=(4, 8), hidden=16)
    x = torch.rand(8, 1, 28, 28)
    with torch.no_grad():
        net(x)
        for norm in (net.norm1, net.norm2):
            norm.eval()
        trained = net(x)
        torch.testing.assert_close(net.eval()(x), trained, atol=0, rtol=0)


@pytest.mark.parametrize("steps", [1, 3])
def test_network_against_a_loop_over_time(steps: int) -> None:
    """Layer after layer over all steps is step after step over all layers."""
    torch.manual_seed(1)
    net = SpikingNetwork(3, 5, (4, 6), 12, 16, steps).eval()
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        potentials = [torch.zeros(1)] * 3
        rate = torch.zeros(2, 12)
        for _ in range(steps):
            signal = net.norm1(net.conv1(x))
            for layer in range(3):
                potentials[layer] = potentials[layer] + signal
                spike = (potentials[layer] >= 1).float()
                potentials[layer] = potentials[layer] - spike
                if layer == 2:
                    rate += spike / steps
                    continue
                pooled = torch.nn.functional.max_pool2d(spike, 2)
                signal = net.norm2(net.conv2(pooled)) if layer == 0 else net.fc1(pooled.flatten(1))
        expected = net.fc2(rate)
        found = net(x)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-5)


def test_only_plain_operators_are_traced() -> None:
    net = SpikingNetwork(steps=2).eval()
    graph = torch.export.export(net, (torch.rand(2, 1, 28, 28),)).graph
    found = {str(n.target).split(".")[1] for n in graph.nodes if n.op == "call_function"}
    assert found <= {
        "conv2d", "batch_norm", "ge", "to", "sub", "add", "max_pool2d", "flatten", "linear", "div",
        "_assert_tensor_metadata",
    }  # fmt: skip
