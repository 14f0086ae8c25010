"""After matching, each layer's outputs have the float network's mean and deviation per channel."""

import dataclasses

import numpy as np
import pytest
import torch
from small_networks import network, noise, noise_task
from torch import nn

from edgedl.compress.encodings.encodings import quantize_weight, weight_scales
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.encodings.simulate import Simulation
from edgedl.compress.graph.edit import get_tensor
from edgedl.compress.graph.trace import trace
from edgedl.compress.quantize.corrections.match_statistics import MatchStatistics, match_statistics
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.state import ModelState, begin
from edgedl.compress.subject.subject import Subject
from edgedl.runtime.errors import BadInputError


def coarse(state: ModelState) -> QuantizedNetwork:
    """Return the network on weight grids 16 times too coarse, which shrink and shift outputs."""
    table = state.quantized.encodings
    wide = {path: amax * 16 for path, amax in table.weights.items()}
    return QuantizedNetwork(state.quantized.graph, dataclasses.replace(table, weights=wide))


def of_operators(name: str, *shape: int) -> ModelState:
    subject = Subject(name, network(name).module, noise_task(shape))
    state = begin(subject)
    return QuantizeStatic(samples=48).apply(state)


class Layers(torch.fx.Interpreter):
    """Computes a quantized network as ``Simulation`` does and keeps what its layers put out."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation.graph)
        self.simulation = simulation
        self.found: dict[str, np.ndarray] = {}

    def run_node(self, n: torch.fx.Node) -> object:
        if n.op in ("placeholder", "get_attr"):
            return super().run_node(n)
        value = self.simulation.compute(n, self.env)
        if n in self.simulation.scales:
            self.found[n.name] = np.moveaxis(value.numpy(), 1, 0).reshape(value.shape[1], -1)
        return value


def layer_outputs(network: QuantizedNetwork, x: torch.Tensor, exact: bool) -> dict:
    simulation = Simulation(network.graph, network.encodings)
    layers = Layers(simulation)
    if exact:
        compute = simulation.compute
        simulation.compute = lambda node, values: compute(node, values, active=())
    with torch.no_grad():
        layers.run(x)
    return layers.found


def test_means_and_deviations_come_nearer_to_the_float_networks() -> None:
    state = of_operators("operators", 3, 10, 10)
    rough = coarse(state)
    batches = [(torch.tensor(b.inputs[0]),) for b in state.subject.task.batches("calibration", 16)]
    x = torch.cat([b for (b,) in batches])
    exact = layer_outputs(QuantizedNetwork(state.graph, rough.encodings), x, exact=True)
    matched = match_statistics(state.graph, rough, batches)
    before, after = (layer_outputs(n, x, exact=False) for n in (rough, matched))
    assert before.keys() == after.keys() == exact.keys()
    simulation = Simulation(matched.graph, matched.encodings)
    own = [n for n in simulation.weighted if f"{n.name}_corrected_weight" in str(n.args[1])]
    assert len(own) >= 3
    for node in own:
        for statistic in (np.mean, np.std):
            target = statistic(exact[node.name], axis=1)
            errors = [
                np.abs(statistic(f[node.name], axis=1) - target).sum() for f in (before, after)
            ]
            # A bias is rounded to its grid, here a coarse one; that moves the mean.
            steps = simulation.scales[node] * simulation.affine(node.args[0], node).scale
            allowed = float(steps.sum()) / 2 if statistic is np.mean else 0.0
            assert errors[1] < max(0.1 * errors[0], allowed), (node.name, statistic)


def test_the_integers_of_the_weights_stay() -> None:
    state = of_operators("operators", 3, 10, 10)
    matched = MatchStatistics(samples=16).apply(state).quantized
    for original, node in zip(
        Simulation(state.graph, state.quantized.encodings).weighted,
        Simulation(matched.graph, matched.encodings).weighted,
        strict=True,
    ):
        integers = []
        for n, net in ((original, state.quantized), (node, matched)):
            path = str(n.args[1].target)
            scales = weight_scales(net.encodings.weights[path])
            integers.append(quantize_weight(get_tensor(net.graph, path), scales, 0).int())
        # Where a value lay half-way, another last digit of the step decides.
        assert (integers[0] - integers[1]).abs().max() <= 1
        assert (integers[0] != integers[1]).float().mean() < 0.02


def test_a_layer_without_bias_and_a_dead_channel_stay_finite() -> None:
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3, bias=False)).eval()
    with torch.no_grad():
        net[0].weight[2], net[0].bias[2] = 0.0, 1.5
    subject = Subject("dead", net, noise_task((6,)))
    state = QuantizeStatic(samples=48).apply(ModelState(subject, trace(net, (noise(2, 6),))))
    matched = MatchStatistics(samples=48).apply(state).quantized
    with torch.no_grad():
        exact = net(noise(20, 6))
    errors = []
    for quantized in (state.quantized, matched):
        (y,) = Simulation(quantized.graph, quantized.encodings)(noise(20, 6))
        errors.append(float((y - exact).square().mean()))
    assert errors[1] < 2 * errors[0]


def test_the_settings_are_written_down_and_the_float_network_stays() -> None:
    state = of_operators("operators", 3, 10, 10)
    code = state.graph.code
    after = MatchStatistics(samples=16, batch_size=8).apply(state)
    assert after.graph is state.graph
    assert after.graph.code == code
    assert after.history[-1].stage == "match_statistics"
    assert after.history[-1].settings == {"samples": 16, "batch_size": 8}


def test_it_needs_a_quantized_network(float_state: ModelState) -> None:
    with pytest.raises(BadInputError, match="match_statistics works on a quantized network"):
        MatchStatistics().apply(float_state)
