"""The encodings table: what it rejects, its scales, and its JSON."""

import json
import math

import pytest
import torch

from edgedl.compress.encodings.encodings import Encodings, Range, weight_scales


@pytest.mark.parametrize(
    ("lo", "hi"), [(1.0, 0.0), (math.nan, 1.0), (0.0, math.nan), (-math.inf, 0.0), (0.0, math.inf)]
)
def test_range_rejects_what_no_grid_covers(lo: float, hi: float) -> None:
    with pytest.raises(ValueError, match="not a range"):
        Range(lo, hi)


def test_range_may_be_one_point() -> None:
    assert Range(2.0, 2.0).hi == 2.0


def test_weight_scales_are_float32_over_127() -> None:
    amax = torch.tensor([1.27, 0.1, 3.0])
    scales = weight_scales(amax)
    assert scales.dtype == torch.float32
    assert torch.equal(scales, amax / 127)


def test_json_keeps_every_bit() -> None:
    amax = torch.rand(7, generator=torch.Generator().manual_seed(3))
    table = Encodings({"conv": Range(-0.1, 1 / 3), "x": Range(0.0, 2.5)}, {"conv.weight": amax})
    read = json.loads(table.to_json())
    assert read["activations"]["conv"] == {"lo": -0.1, "hi": 1 / 3}
    assert list(read["activations"]) == ["conv", "x"]
    assert torch.equal(torch.tensor(read["weights"]["conv.weight"]), amax)


def test_json_is_indented_text_that_ends_with_a_newline() -> None:
    text = Encodings({"x": Range(0.0, 1.0)}, {}).to_json().decode()
    assert text.endswith("}\n")
    assert len(text.splitlines()) > 3
