"""Gradients through rounding against the papers' equations, written out value by value."""

import numpy as np
import pytest
import torch
from small_networks import noise

from edgedl.compress.encodings.affine import Affine
from edgedl.compress.encodings.encodings import quantize_weight
from edgedl.compress.encodings.simulate import fake_quantize
from edgedl.compress.quantize.qat.learned_step import (
    quantize_activation,
    round_weight,
    straight_through,
)


def lsq(v: float, s: float, low: int, high: int) -> tuple[float, float]:
    """Return (dv^/ds, dv^/dv) of LSQ, equations 3 and 5: low is -Q_N, high is Q_P."""
    if v / s <= low:
        return low, 0.0
    if v / s >= high:
        return high, 0.0
    return -v / s + round(v / s), 1.0


def lsq_plus(x: float, s: float, beta: float) -> tuple[float, float]:
    """Return (dx^/ds, dx^/dbeta) of LSQ+, equations 4 and 5, for integers 0 to 255."""
    v = (x - beta) / s
    if v <= 0:
        return 0.0, 1.0
    if v >= 255:
        return 255.0, 1.0
    return -v + round(v), 0.0


def values(scale: float, zero_point: int) -> torch.Tensor:
    """Return float32 [4, 25, 3] from below the grid to above it, far from ties and ends."""
    steps = torch.randint(-60, 316, (4, 25, 3)) - zero_point
    away = torch.rand(4, 25, 3) * 0.8 - 0.4
    return ((steps + away) * scale).requires_grad_()


@pytest.mark.parametrize("zero_point", [0, 100, 255])
def test_activation_gradients_are_those_of_lsq_and_lsq_plus(zero_point: int) -> None:
    s = 0.03
    x, upstream = values(s, zero_point), noise(4, 25, 3, seed=3)
    scale, zero = torch.tensor(s, requires_grad=True), torch.tensor(float(zero_point))
    zero.requires_grad_()
    quantize_activation(x, scale, zero).backward(upstream)
    to_scale = to_scale_plus = to_zero = 0.0
    expected = np.zeros(x.shape)
    beta = -zero_point * s
    for index, v in np.ndenumerate(x.detach().numpy()):
        g = float(upstream[index])
        d_s, d_v = lsq(float(v), s, -zero_point, 255 - zero_point)
        plus_s, plus_beta = lsq_plus(float(v), s, beta)
        expected[index] = g * d_v
        to_scale += g * d_s
        # With beta = -z * s, a step of s at constant z moves beta by -z, one of z by -s.
        to_scale_plus += g * (plus_s - zero_point * plus_beta)
        to_zero += g * plus_beta * -s
    importance = 1 / np.sqrt(25 * 3 * max(zero_point, 255 - zero_point))
    np.testing.assert_allclose(x.grad, expected, rtol=1e-6)
    np.testing.assert_allclose(scale.grad, to_scale * importance, rtol=1e-4)
    np.testing.assert_allclose(scale.grad, to_scale_plus * importance, rtol=1e-4)
    np.testing.assert_allclose(zero.grad, to_zero * importance, rtol=1e-4)


@pytest.mark.parametrize("axis", [0, 1])
def test_weight_gradients_are_those_of_lsq_per_channel(axis: int) -> None:
    weight = (noise(3, 4, 5) * 0.2).requires_grad_()
    upstream = noise(3, 4, 5, seed=4)
    channels = weight.shape[axis]
    scales = torch.linspace(0.001, 0.005, channels).requires_grad_()
    round_weight(weight, scales, axis).backward(upstream)
    expected, to_scales = np.zeros(weight.shape), np.zeros(channels)
    for index, w in np.ndenumerate(weight.detach().numpy()):
        d_s, d_w = lsq(float(w), float(scales.detach()[index[axis]]), -127, 127)
        expected[index] = float(upstream[index]) * d_w
        to_scales[index[axis]] += float(upstream[index]) * d_s
    clipped = (expected == 0).mean()
    assert 0.05 < clipped < 0.95
    importance = 1 / np.sqrt(weight.numel() / channels * 127)
    np.testing.assert_allclose(weight.grad, expected, rtol=1e-6)
    np.testing.assert_allclose(scales.grad, to_scales * importance, rtol=1e-3)


def test_forwards_it_rounds_as_everything_else_does() -> None:
    x = noise(4, 50) * 3
    affine = Affine(float(torch.tensor(0.017)), 90, 0, 255, "uint8")
    found = quantize_activation(x, torch.tensor(0.017), torch.tensor(90.0))
    assert torch.equal(found, fake_quantize(x, affine))
    scales = torch.tensor([0.01, 0.02, 0.03, 0.04])
    expected = quantize_weight(x, scales, 0) * scales.view(-1, 1)
    assert torch.equal(round_weight(x, scales, 0), expected)


def test_straight_through_is_the_replacement_with_the_gradient_of_the_original() -> None:
    x = noise(40).requires_grad_()
    upstream = noise(40, seed=1)
    found = straight_through(x, x.detach().round())
    assert torch.equal(found, x.detach().round())
    found.backward(upstream)
    twin = x.detach().clone().requires_grad_()
    (twin + (twin.round() - twin).detach()).backward(upstream)
    assert torch.equal(x.grad, twin.grad)
