"""Weights into which a converter has folded constants are found with their factors."""

import numpy as np
import pytest
import torch
from small_networks import noise

from edgedl.compress.encodings.grouped import GroupedWeight
from edgedl.compress.errors import ExportError
from edgedl.compress.export.weight_table import WeightTable


def weight(seed: int, groups: int = 1) -> GroupedWeight:
    integers = (noise(6, 8, seed=seed) * 40).round().clamp(-127, 127).to(torch.int8)
    integers[2] = 0
    return GroupedWeight(integers, noise(6, groups, seed=seed + 1).abs() + 0.1, 8)


TABLE = {"a": weight(0), "b": weight(5, groups=2)}


@pytest.mark.parametrize("path", ["a", "b"])
def test_rows_and_columns_that_were_multiplied(path: str) -> None:
    real = TABLE[path].dequantized().numpy()
    rows = np.linspace(0.3, 2.0, 6, dtype=np.float32)[:, None]
    columns = np.linspace(-1.0, 1.5, 8, dtype=np.float32)
    table = WeightTable(TABLE)
    found = table.find_folded(real * rows)
    assert found is not None
    assert (found.path, found.columns) == (path, None)
    np.testing.assert_allclose(found.weight.dequantized().numpy(), real * rows, rtol=1e-6)
    assert torch.equal(found.weight.integers, TABLE[path].integers)

    found = WeightTable(TABLE).find_folded(real * columns)
    assert found is not None
    assert found.weight == TABLE[path]
    assert found.columns is not None
    np.testing.assert_allclose(found.columns, columns, rtol=1e-6)
    assert found.columns.dtype == np.float32


def test_what_is_no_multiple_is_another_weight() -> None:
    table = WeightTable(TABLE)
    real = TABLE["a"].dequantized().numpy()
    changed = real * 2
    changed[0, 0] *= 1.0001
    for other in (changed, -real * np.arange(1, 7)[:, None] * np.arange(8), noise(6, 8).numpy()):
        assert table.find_folded(other.astype(np.float32)) is None
    assert table.find(real * 2) is None
    with pytest.raises(ExportError, match="rewrote the weight 'a'"):
        table.check_complete()
    # Every weight is found once.
    assert table.find_folded(real * 2) is not None
    assert table.find_folded(real * 2) is None
    assert table.find(TABLE["b"].dequantized().numpy()) is not None
    table.check_complete()
