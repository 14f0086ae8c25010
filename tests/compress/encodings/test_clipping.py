"""Clipped weights against every candidate tried one by one, and the limit of the bias."""

import numpy as np
import pytest
import torch
from small_networks import noise
from torch import nn

from edgedl.compress.encodings.affine import affine_for
from edgedl.compress.encodings.calibrate import calibrate
from edgedl.compress.encodings.clipping import least_error_amax
from edgedl.compress.encodings.encodings import weight_scales
from edgedl.compress.graph.trace import trace
from edgedl.compress.targets.named import TFLITE


def error(row: np.ndarray, amax: float) -> float:
    step = amax / 127
    return float(((np.clip(np.rint(row / step), -127, 127) * step - row) ** 2).sum())


def heavy(channels: int, inputs: int) -> torch.Tensor:
    """Return weights whose largest values are rare: float32 [C, K]."""
    return torch.tensor(
        np.random.default_rng(0).standard_t(2, (channels, inputs)), dtype=torch.float32
    )


def test_it_is_the_least_error_of_all_shares() -> None:
    weight = heavy(12, 400)
    for row, found in zip(weight.double().numpy(), least_error_amax(weight).tolist(), strict=True):
        whole = np.abs(row).max()
        best = min(error(row, whole * k) for k in np.arange(0.3, 1.0001, 0.01))
        assert error(row, found) <= best * 1.0001
        assert 0.299 * whole <= found <= whole * 1.0001


def test_rare_large_values_are_clipped_and_few_values_are_not() -> None:
    # One outlier among very many even values: its clipping costs less than the finer step brings.
    even = torch.linspace(-1, 1, 200_000)
    weight = torch.cat([even, torch.tensor([1.6])])[None]
    assert float(least_error_amax(weight)) < 1.5
    assert float(least_error_amax(torch.tensor([[1.0, -0.5, 127 / 127]]))) == 1.0


def test_a_channel_of_zeros_stays_zero() -> None:
    weight = heavy(3, 20)
    weight[1] = 0
    assert float(least_error_amax(weight)[1]) == 0.0


@pytest.mark.parametrize("observer", ["minmax", "mse"])
def test_the_bias_fits_its_accumulator_whatever_is_clipped(observer: str) -> None:
    linear = nn.Linear(20_000, 4)
    # Even values and one that is worth clipping.
    linear.weight.data[:] = torch.linspace(-1, 1, 20_000)
    linear.weight.data[:, 0] = 1.3
    linear.weight.data[1:3] *= 1e-9
    linear.bias.data[:] = torch.tensor([0.1, 0.0, 2.0, 1e6])
    x = noise(8, 20_000)
    found = calibrate(trace(linear, (x[:2],)), [(x,)], "minmax", weight_observer=observer)
    (amax,) = found.weights.values()
    input_scale = affine_for(next(iter(found.activations.values())), TFLITE).scale
    integers = linear.bias.double() / (weight_scales(amax).double() * input_scale)
    assert integers.abs().max() <= 2**30 * 1.0001
    assert (float(amax[0]) < 1.29) == (observer == "mse")
