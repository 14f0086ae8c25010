"""Networks drawn at random: the same from the same seed, and a few of them all the way."""

import numpy as np
import pytest
import torch

from benchmarks.sweep.grammar import draw
from benchmarks.sweep.sweep import sweep_one


def outputs_of(seed: int) -> tuple[tuple[str, ...], list[np.ndarray]]:
    drawn = draw(seed)
    x = torch.randn(3, *drawn.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = drawn.module(x)
    several = found if isinstance(found, tuple) else (found,)
    return drawn.words, [y.numpy() for y in several]


def test_a_seed_is_a_network() -> None:
    first, second, other = outputs_of(4), outputs_of(4), outputs_of(5)
    assert first[0] == second[0] != other[0]
    for a, b in zip(first[1], second[1], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("seed", range(24))
def test_parts_are_apart_and_whole(seed: int) -> None:
    drawn = draw(seed)
    _, outputs = outputs_of(seed)
    covered = [np.zeros(max(1, y[0].size), int) for y in outputs]
    for output, mask in drawn.parts:
        covered[output] += mask.numpy()
    assert all((count == 1).all() for count in covered)
    assert all(np.isfinite(y).all() for y in outputs)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "prune"), [(0, False), (5, True), (13, False)])
def test_a_few_networks_all_the_way(seed: int, prune: bool) -> None:
    outcome = sweep_one(seed, prune)
    assert outcome.wrong == ()
    assert outcome.files or outcome.said
