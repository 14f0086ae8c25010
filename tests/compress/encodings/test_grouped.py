"""Steps per group and integers, against loops in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import noise

from edgedl.compress.encodings.grouped import (
    GroupedWeight,
    fitting_group,
    group_scales,
    round_to_groups,
)


@pytest.mark.parametrize(("bits", "qmax"), [(4, 7), (8, 127)])
@pytest.mark.parametrize("group_size", [4, 12])
def test_integers_and_steps_are_those_of_a_loop(bits: int, qmax: int, group_size: int) -> None:
    weight = noise(3, 12)
    found = round_to_groups(weight, group_scales(weight, group_size, bits, "minmax"), bits)
    assert found.group_size == group_size
    assert found.per_channel == (group_size == 12)
    for channel, row in enumerate(weight.numpy()):
        for start in range(0, 12, group_size):
            values = row[start : start + group_size]
            scale = np.float32(np.abs(values).max() / np.float32(qmax))
            assert found.scales[channel, start // group_size] == scale
            integers = found.integers[channel, start : start + group_size].numpy()
            assert np.array_equal(integers, np.rint(values / scale))
            assert np.abs(integers).max() == qmax
            real = found.dequantized()[channel, start : start + group_size].numpy()
            assert np.array_equal(real, integers.astype(np.float32) * scale)


def test_a_convolution_keeps_its_shape() -> None:
    weight = noise(4, 3, 2, 2)
    found = round_to_groups(weight, group_scales(weight.reshape(4, -1), 12, 8, "minmax"), 8)
    assert found.integers.shape == found.dequantized().shape == weight.shape
    assert (found.dequantized() - weight).abs().max() <= 0.5001 * found.scales.max()


def test_the_step_of_least_error_is_never_worse_than_the_largest() -> None:
    weight = noise(20, 64) ** 3
    errors = {}
    for observer in ("minmax", "mse"):
        rounded = round_to_groups(weight, group_scales(weight, 32, 4, observer), 4)
        errors[observer] = (rounded.dequantized() - weight).reshape(-1, 32).square().sum(1)
    assert (errors["mse"] <= errors["minmax"] * 1.00001).all()
    assert errors["mse"].sum() < 0.97 * errors["minmax"].sum()


@pytest.mark.parametrize("observer", ["minmax", "mse"])
def test_a_group_of_zeros_stays_zero_and_has_a_step(observer: str) -> None:
    weight = noise(2, 64)
    weight[1, 32:] = 0
    found = round_to_groups(weight, group_scales(weight, 32, 4, observer), 4)
    assert (found.scales > 0).all()
    assert not found.dequantized()[1, 32:].any()


@given(st.integers(1, 5000), st.sampled_from([32, 64, 128]))
def test_groups_divide_the_inputs(inputs: int, wanted: int) -> None:
    size = fitting_group(inputs, wanted)
    assert inputs % size == 0
    if size != inputs:
        larger = [s for s in (16, 32, 64, 128) if size < s <= wanted]
        assert all(inputs % s for s in larger)
        assert 16 <= size <= wanted


def test_runtimes_multiply_in_float32() -> None:
    weight = GroupedWeight(torch.tensor([[3, -7]], dtype=torch.int8), torch.tensor([[0.1]]), 4)
    assert weight.dequantized().dtype == torch.float32
    assert weight.dequantized()[0, 0] == np.float32(3) * np.float32(0.1)
