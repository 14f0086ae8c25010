"""Tensors are found by grid, size and layout; among equals by their values."""

import numpy as np
import pytest

from edgedl.compress.parity.inner_tensors import InnerTensor
from edgedl.compress.parity.match_tensors import match_tensors


def integers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-100, 100, shape).astype(np.int32)


def test_channels_last_is_seen_and_undone() -> None:
    a = integers(1, 3, 4, 5)
    graph, file = InnerTensor("a", 0.5, 10), InnerTensor("f", 0.5, 10 - 128)
    stored = (np.moveaxis(a, 1, -1) + file.zero_point).astype(np.int32)
    match = match_tensors([graph], {"a": a}, [file], {"f": stored})["a"]
    assert match.channels_last
    np.testing.assert_array_equal(match.to_graph(stored), a)
    np.testing.assert_array_equal(match.to_file(a), stored.ravel())


def test_a_cube_is_read_the_way_that_fits() -> None:
    a = integers(1, 4, 4, 4)
    graph, file = InnerTensor("a", 0.5, 0), InnerTensor("f", 0.5, 0)
    for stored, last in ((a, False), (np.moveaxis(a, 1, -1), True)):
        match = match_tensors([graph], {"a": a}, [file], {"f": stored})["a"]
        assert match.channels_last is last
        np.testing.assert_array_equal(match.to_graph(stored), a)


@pytest.mark.parametrize("shape", [(1, 2, 6), (1, 1, 6, 2), (6, 2)])
def test_axes_of_size_one_come_and_go(shape: tuple[int, ...]) -> None:
    a = integers(1, 2, 6)
    file = InnerTensor("f", 0.5, 0)
    stored = (a if shape[-1] == 6 else np.moveaxis(a, 1, -1)).reshape(shape)
    match = match_tensors([InnerTensor("a", 0.5, 0)], {"a": a}, [file], {"f": stored})["a"]
    np.testing.assert_array_equal(match.to_graph(stored), a)


def test_of_tensors_on_one_grid_those_that_fit_go_together_in_any_order() -> None:
    a, b, c = (integers(1, 8, seed=i) for i in range(3))
    graph = [InnerTensor(n, 0.5, 0) for n in "abc"]
    # The file lacks b and has the others the other way round, one with an integer that is off.
    file = [InnerTensor("late", 0.5, 0), InnerTensor("early", 0.5, 0)]
    found = {"late": c + (np.arange(8) == 3), "early": a}
    matches = match_tensors(graph, {"a": a, "b": b, "c": c}, file, found)
    assert {node: m.tensor.name for node, m in matches.items()} == {"a": "early", "c": "late"}
    assert list(matches) == ["a", "c"]


@pytest.mark.parametrize(
    "file", [InnerTensor("f", 0.25, 0), InnerTensor("f", 0.5, 1), InnerTensor("f", 0.5, 0)]
)
def test_another_grid_or_size_is_no_match(file: InnerTensor) -> None:
    a = integers(1, 8)
    size = 8 if (file.scale, file.zero_point) != (0.5, 0) else 9
    found = {"f": integers(1, size)}
    assert match_tensors([InnerTensor("a", 0.5, 0)], {"a": a}, [file], found) == {}
