"""Faster pairs compute what torch's own do, to the last bit."""

import pytest
import torch
from torch.ao.quantization.fx import _decomposed

from edgedl.compress.encodings.affine import Affine
from edgedl.compress.encodings.faster_pairs import compute_pairs_faster
from edgedl.compress.encodings.simulate import fake_quantize

GRIDS = [
    (0.05, 3, -128, 127, torch.int8),
    (0.25, 128, 0, 255, torch.uint8),
    (1 / 3, -128, -128, 127, torch.int8),
    (0.001, 0, -32768, 32767, torch.int16),
    (1e-6, 40_000, 0, 65_535, torch.uint16),
]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_pairs_are_those_of_torch(
    grid: tuple[float, int, int, int, torch.dtype], dtype: torch.dtype
) -> None:
    compute_pairs_faster()
    for name in ("quantize_per_tensor", "dequantize_per_tensor"):
        full = f"quantized_decomposed::{name}"
        assert torch._C._dispatch_has_kernel_for_dispatch_key(full, "CPU")
    scale = grid[0]
    ties = (torch.arange(-40, 40) + 0.5) * scale
    x = torch.cat([torch.randn(5_000) * 50 * scale, ties, torch.tensor([0.0, -0.0, 1e4, -1e4])])
    x = x.to(dtype)
    before = x.clone()
    ops = torch.ops.quantized_decomposed
    integers = ops.quantize_per_tensor(x, *grid)
    expected = _decomposed.quantize_per_tensor(x, *grid)
    assert integers.dtype == grid[-1]
    assert torch.equal(integers, expected)
    found = ops.dequantize_per_tensor(integers, *grid)
    assert torch.equal(found, _decomposed.dequantize_per_tensor(expected, *grid))
    assert torch.equal(x, before)
    assert torch.equal(integers, expected)


@pytest.mark.parametrize("grid", GRIDS[:3], ids=str)
def test_a_simulated_pair_is_the_emitted_one(
    grid: tuple[float, int, int, int, torch.dtype],
) -> None:
    scale, zero_point, qmin, qmax, dtype = grid
    affine = Affine(scale, zero_point, qmin, qmax, str(dtype).removeprefix("torch."))
    x = torch.cat([torch.randn(5_000) * 50 * scale, (torch.arange(-40, 40) + 0.5) * scale])
    integers = _decomposed.quantize_per_tensor(x, *grid)
    assert torch.equal(fake_quantize(x, affine), _decomposed.dequantize_per_tensor(integers, *grid))
