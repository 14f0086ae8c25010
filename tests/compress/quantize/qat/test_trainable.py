"""The network that is trained computes the emitted graph's values, untrained and trained."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from small_networks import NETWORKS, Net, Quantized, network, noise
from torch import nn

from edgedl.compress.encodings.emit import emit
from edgedl.compress.encodings.encodings import weight_scales
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.quantize.qat.trainable import TrainableNetwork
from edgedl.compress.targets.named import ORT, TFLITE


def trainable(net: Quantized, learn: str = "scales_and_offsets") -> TrainableNetwork:
    return TrainableNetwork(QuantizedNetwork(net.graph, net.encodings), learn)


def assert_emitted(network: TrainableNetwork, net: Quantized) -> None:
    """Compare with the emitted graphs; both integer runtimes have these values."""
    found = network(*net.inputs)
    result = network.quantized()
    for target in (ORT, TFLITE):
        expected = net.outputs(emit(result.graph, result.encodings, target))
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a.detach(), torch.tensor(b), rtol=0, atol=1e-6)


def train_a_little(network: TrainableNetwork, net: Quantized, steps: int = 3) -> None:
    optimizer = torch.optim.Adam(network.parameters(), 3e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        sum((y - 0.3).square().mean() for y in network(*net.inputs)).backward()
        optimizer.step()


@pytest.mark.parametrize("learn", ["nothing", "scales", "scales_and_offsets"])
@pytest.mark.parametrize("name", NETWORKS)
def test_untrained_it_is_the_emitted_graph(name: str, learn: str) -> None:
    assert_emitted(trainable(network(name), learn), network(name))


@pytest.mark.parametrize("name", NETWORKS)
def test_trained_it_is_the_emitted_graph_of_the_result(name: str) -> None:
    net = network(name)
    trained = trainable(net)
    before = trained.quantized()
    train_a_little(trained, net)
    after = trained.quantized()
    assert after.encodings.activations != before.encodings.activations
    assert_emitted(trained, net)


def test_relu6_may_outgrow_its_bound_and_nothing_changes() -> None:
    net = Quantized(
        Net(lambda n, x: F.relu6(n.conv(x)), conv=nn.Conv2d(3, 4, 1)), (9 * noise(20, 3, 5, 5),)
    )
    for ratio in (-0.2, 0.2):
        trained = trainable(net)
        with torch.no_grad():
            trained.ranges.log_ratios.add_(ratio)
        assert_emitted(trained, net)


def test_the_given_network_stays_as_it_is() -> None:
    net = network("operators")
    before = {key: value.clone() for key, value in net.graph.state_dict().items()}
    trained = trainable(net)
    train_a_little(trained, net)
    after = net.graph.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    result = trained.quantized().graph.state_dict()
    assert all(not torch.equal(before[k], result[k]) for k in before if k.endswith("weight"))


def test_a_bias_that_outgrows_int32_widens_its_channel() -> None:
    net = Quantized(Net(lambda n, x: n.fc(x), fc=nn.Linear(4, 3)), (noise(30, 4),))
    trained = trainable(net)
    with torch.no_grad():
        bias = next(p for p in trained.tensors if p.shape == (3,))
        bias[1] = 1e6
    assert_emitted(trained, net)
    ratio = trained.quantized().encodings.weights["fc.weight"] / net.encodings.weights["fc.weight"]
    assert ratio[1] > 10
    assert ratio[0] == ratio[2] == 1


def test_layers_kept_in_float_are_trained_in_float() -> None:
    net = network("operators")
    kept = replace(net.encodings, float_nodes=frozenset({"linear_1"}))
    trained = TrainableNetwork(QuantizedNetwork(net.graph, kept), "scales")
    train_a_little(trained, net)
    result = trained.quantized()
    assert result.encodings.float_nodes == {"linear_1"}
    (found,) = trained(*net.inputs)
    (expected,) = net.outputs(emit(result.graph, result.encodings, ORT))
    torch.testing.assert_close(found.detach(), torch.tensor(expected), rtol=0, atol=1e-6)
    path = "fc.weight"
    assert torch.equal(result.encodings.weights[path], net.encodings.weights[path])
    assert not torch.equal(result.graph.fc.weight, net.graph.fc.weight)


def test_a_weight_that_serves_two_layers_has_one_scale() -> None:
    net = network("operators")
    trained = trainable(net)
    train_a_little(trained, net)
    result = trained.quantized()
    amax = trained.ranges.amax("shared.weight")
    assert torch.equal(
        weight_scales(result.encodings.weights["shared.weight"]), weight_scales(amax.detach())
    )
    assert sum(n.target == "shared.weight" for n in result.graph.graph.nodes) == 1
