"""What a layer reads, against torch's own unfold and convolution."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_networks import Net, Quantized, noise
from torch import nn

from edgedl.compress.encodings.simulate import Simulation
from edgedl.compress.quantize.corrections.layerwise import Layer
from edgedl.compress.quantize.corrections.moments import InputMoments, patches
from edgedl.compress.quantize.corrections.rounding import round_layer

CONVOLUTIONS = {
    "plain": nn.Conv2d(4, 6, 3),
    "strided": nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0)),
    "dilated": nn.Conv2d(4, 6, 3, dilation=2, padding=2),
    "same": nn.Conv2d(4, 6, (3, 4), padding="same"),
    "valid": nn.Conv2d(4, 6, 3, padding="valid"),
    "grouped": nn.Conv2d(4, 6, 3, groups=2),
    "depthwise": nn.Conv2d(4, 8, 3, groups=4, stride=2, padding=1),
    "pointwise": nn.Conv2d(4, 6, 1),
}


def layer_of(module: nn.Module, *shape: int) -> Layer:
    """Return the only layer of a network, with the same inputs in both streams."""
    x = noise(*shape)
    net = Quantized(Net(lambda net, x: net.layer(x), layer=module), (x,))
    simulation = Simulation(net.graph, net.encodings)
    (node,) = simulation.weighted
    weight, bias = simulation.weight(node), simulation.bias(node)
    return Layer(node, weight, bias, simulation.scales[node], [x], [x])


def outputs_from_patches(layer: Layer, columns: torch.Tensor) -> np.ndarray:
    """Return weight @ patches + bias, the outputs of every position sorted: [C_out, positions]."""
    groups = columns.shape[0]
    weight = layer.weight.reshape(groups, layer.weight.shape[0] // groups, -1)
    found = (weight @ columns).flatten(0, 1) + layer.bias[:, None]
    return np.sort(found.detach().numpy(), axis=1)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_weight_times_patches_is_the_convolution(name):
    module = CONVOLUTIONS[name]
    layer = layer_of(module, 3, 4, 9, 8)
    with torch.no_grad():
        expected = module(layer.inputs[0]).movedim(1, 0).flatten(1)
    found = outputs_from_patches(layer, patches(layer, layer.inputs[0]))
    np.testing.assert_allclose(found, np.sort(expected.numpy(), axis=1), atol=1e-5)


def test_one_dimensional_convolution():
    module = nn.Conv1d(4, 6, 3, stride=2, padding=1)
    layer = layer_of(module, 3, 4, 11)
    with torch.no_grad():
        expected = module(layer.inputs[0]).movedim(1, 0).flatten(1)
    found = outputs_from_patches(layer, patches(layer, layer.inputs[0]))
    np.testing.assert_allclose(found, np.sort(expected.numpy(), axis=1), atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 7), (5, 3, 7)])
def test_a_linear_layer_reads_every_row(shape):
    layer = layer_of(nn.Linear(7, 2), *shape)
    expected = layer.inputs[0].reshape(-1, 7).T.numpy()
    np.testing.assert_array_equal(patches(layer, layer.inputs[0])[0].numpy(), expected)


def test_large_maps_are_sampled_at_the_same_places_every_time():
    layer = layer_of(nn.Conv2d(4, 6, 3), 3, 4, 9, 8)
    x = layer.inputs[0]
    few = patches(layer, x, 50)
    # 17 places of each of the three samples.
    assert few.shape == (1, 36, 51)
    torch.testing.assert_close(patches(layer, 2 * x, 50), 2 * few)
    assert patches(layer, x, 10**6).shape == patches(layer, x).shape
    everything = {tuple(column) for column in patches(layer, x)[0].T.tolist()}
    assert len(everything) == 3 * 7 * 6
    assert {tuple(column) for column in few[0].T.tolist()} <= everything


@pytest.mark.parametrize("name", ["plain", "depthwise"])
def test_moments_of_several_batches_are_those_of_all_of_them(name):
    layer = layer_of(CONVOLUTIONS[name], 6, 4, 9, 8)
    x = layer.inputs[0]
    rounded = (x * 4).round() / 4
    split = Layer(
        layer.node, layer.weight, layer.bias, layer.scales, list(x.split(2)), list(rounded.split(2))
    )
    found = InputMoments(split)
    exact, read = patches(layer, x).double().numpy(), patches(layer, rounded).double().numpy()
    for group in range(found.groups):
        np.testing.assert_allclose(
            found.means()[0][group], exact[group].mean(1), rtol=1e-6, atol=1e-7
        )
        np.testing.assert_allclose(
            found.means()[1][group], read[group].mean(1), rtol=1e-6, atol=1e-7
        )
        expected = np.cov(read[group], bias=True)
        np.testing.assert_allclose(found.covariance()[group], expected, rtol=1e-5, atol=1e-6)


def test_the_covariance_of_inputs_that_hardly_vary_around_a_large_mean():
    layer = layer_of(nn.Linear(7, 3), 4, 50, 7)
    mean = 3000 + 100 * noise(7)
    batches = [mean + 0.02 * noise(4, 50, 7, seed=k) for k in (1, 2)]
    moments = InputMoments(replace(layer, float_inputs=batches, inputs=batches))
    rows = torch.cat(batches).flatten(0, 1).double()
    expected = np.cov(rows.numpy().T, bias=True)
    np.testing.assert_allclose(moments.covariance()[0], expected, atol=1e-3 * expected.max())
    np.testing.assert_allclose(moments.second_moments()[0], rows.T @ rows / len(rows), rtol=1e-6)
    for found in moments.means():
        np.testing.assert_allclose(found[0], rows.mean(0), rtol=1e-6)
    # Without a difference to the mean, the products are not even positive definite.
    weight, bias = round_layer(replace(layer, float_inputs=batches, inputs=batches))
    assert weight.isfinite().all()
    assert bias is not None
    assert bias.isfinite().all()
