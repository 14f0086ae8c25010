"""Learned rounding against every rounding there is, against the nearest one, and as a stage."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_networks import Net, Quantized, noise
from torch import nn

from edgedl.compress.encodings.simulate import Simulation
from edgedl.compress.quantize.corrections.adaround import (
    Reconstruction,
    activation_of,
    initial_logits,
    learn,
    rectified_sigmoid,
)
from edgedl.compress.quantize.corrections.layerwise import Layer
from edgedl.compress.quantize.corrections.learn_rounding import LearnRounding
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.state import ModelState
from edgedl.runtime.errors import BadInputError


def problem(seed: int, relu: bool, size: int = 8) -> Reconstruction:
    """Return one row of weights on a coarse grid that reads correlated inputs."""
    common = noise(1, 1, 300, seed=seed)
    inputs = common + 0.4 * noise(1, size, 300, seed=seed + 1)
    weight = noise(1, 1, size, seed=seed + 2)
    activate = torch.relu if relu else (lambda x: x)
    bias = torch.full((1, 1, 1), 0.3)
    exact = inputs + 0.05 * noise(1, size, 300, seed=seed + 3)
    targets = activate(weight @ exact + bias)
    return Reconstruction(weight, torch.full((1, 1, 1), 0.25), bias, activate, inputs, targets)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("seed", [0, 10, 20])
def test_it_is_near_the_best_of_all_roundings(seed: int, relu: bool) -> None:
    given = problem(seed, relu)
    down = (given.weight / given.step).floor()
    errors = []
    for ups in product((0.0, 1.0), repeat=8):
        integers = (down + torch.tensor(ups)).numpy() * 0.25
        output = integers @ given.inputs.numpy() + 0.3
        output = np.maximum(output, 0) if relu else output
        errors.append(float(np.square(output - given.targets.numpy()).sum() / 300))
    found = float(given.error(learn(given, 250, 0.02, 0)))
    nearest = float(given.error((given.weight / given.step).round() * given.step))
    assert min(errors) <= found * 1.0001
    assert found <= sorted(errors)[5]
    assert found <= nearest
    # For seed 0 the nearest weights are far from the best; for the others they are the best.
    assert (found < 0.9 * nearest) == (seed == 0)


def test_every_weight_is_rounded_up_or_down_and_stays_int8() -> None:
    given = problem(0, True)
    found = learn(given, 50, 0.02, 0) / given.step
    down = (given.weight / given.step).floor()
    assert ((found == down) | (found == down + 1)).all()
    steep = Reconstruction(
        given.weight * 127 * 0.25 / given.weight.abs().max() + 0.2,
        *(given.step, given.bias, given.activate, given.inputs, given.targets),
    )
    assert (learn(steep, 5, 0.02, 0) / given.step).abs().max() <= 127


def test_the_same_seed_gives_the_same_weights() -> None:
    given = problem(3, True)
    assert torch.equal(learn(given, 30, 0.02, 5), learn(given, 30, 0.02, 5))


def test_it_starts_from_the_float_weight() -> None:
    share = torch.linspace(0, 0.999, 50)
    torch.testing.assert_close(rectified_sigmoid(initial_logits(share)), share, atol=1e-5, rtol=0)


LAYERS = {
    "conv": (lambda: nn.Conv2d(4, 6, 3, padding=1), (16, 4, 6, 6)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), (16, 4, 6, 6)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4, bias=False), (16, 4, 6, 6)),
    "linear": (lambda: nn.Linear(6, 5), (96, 6)),
}


def layer_of(name: str) -> tuple[nn.Module, Layer, torch.Tensor]:
    """Return a module and its layer on a grid 16 times too coarse, with ReLU6 behind."""
    make, shape = LAYERS[name]
    module = make()
    x = noise(*shape[:1], 1, *shape[2:]) + 0.3 * noise(*shape, seed=1) + 0.5
    net = Quantized(Net(lambda net, x: F.relu6(net.layer(x)), layer=module), (x,))
    simulation = Simulation(net.graph, net.encodings)
    (node,) = simulation.weighted
    return module, Layer(
        node, simulation.weight(node), simulation.bias(node), simulation.scales[node] * 16,
        [x], [x],
    ), x  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_of_a_layer_are_nearer_than_with_the_nearest_weights(name: str) -> None:
    module, layer, x = layer_of(name)
    weight, bias = LearnRounding(iterations=200, learning_rate=0.02)._learn(layer)
    assert bias is layer.bias
    step = layer.scales.view(-1, *[1] * (weight.ndim - 1))
    nearest = (layer.weight / step).round() * step

    def error(weight: torch.Tensor) -> float:
        if name == "linear":
            found = F.linear(x, weight, layer.bias)
        else:
            options = {"padding": module.padding, "groups": module.groups}
            found = F.conv2d(x, weight, layer.bias, **options)
        with torch.no_grad():
            return float((found.clamp(0, 6) - module(x).clamp(0, 6)).square().mean())

    assert error(weight) < error(nearest)


def test_the_activation_is_the_one_behind_the_layer() -> None:
    _, layer, _ = layer_of("linear")
    x = torch.tensor([-1.0, 2.0, 9.0])
    assert activation_of(layer)(x).tolist() == [0.0, 2.0, 6.0]


def test_the_stage_brings_the_outputs_nearer(float_state: ModelState) -> None:
    quantized = QuantizeStatic(samples=32).apply(float_state)
    stage = LearnRounding(samples=32, iterations=60, learning_rate=0.02)
    learned = stage.apply(quantized)
    (batch,) = float_state.subject.task.batches("test", 1000)
    x = torch.tensor(batch.inputs[0])
    with torch.no_grad():
        exact = float_state.graph(x)
    errors = [
        float((Simulation(n.graph, n.encodings)(x)[0] - exact).square().mean())
        for n in (quantized.quantized, learned.quantized)
    ]
    assert errors[1] < errors[0]
    assert learned.graph is float_state.graph
    assert learned.history[-1].settings["iterations"] == 60
    assert learned.quantized.encodings.activations == quantized.quantized.encodings.activations


def test_it_needs_a_quantized_network(float_state: ModelState) -> None:
    with pytest.raises(BadInputError, match="learn_rounding works on a quantized network"):
        LearnRounding().apply(float_state)
