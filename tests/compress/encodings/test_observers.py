"""Histograms against numpy on all the data at once; ranges against brute force on the raw data."""

from itertools import product
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sampled_values import histogram, samples

from edgedl.compress.encodings.observers import BINS, Histogram, Observer

# Multiples of 2**-10: exact in float32, and so are all sums with a span. A power of two may be
# the span itself, where the last bin is closed on both sides.
INTEGERS = st.integers(-9000, 9000).filter(lambda n: n <= 0 or n & (n - 1))
BATCHES = st.lists(st.lists(INTEGERS, min_size=1, max_size=20), min_size=1, max_size=6)
SHRUNK = np.arange(0.3, 1.001, 0.02)


def raw_error(x: np.ndarray, lo: float, hi: float) -> float:
    """Return the mean squared error of 256 levels from lo to hi on the data itself."""
    step = (hi - lo) / 255
    quantized = np.clip(np.rint((x - lo) / step), 0, 255) * step + lo
    return float(((quantized - x) ** 2).mean())


@settings(max_examples=60, deadline=None)
@given(BATCHES)
def test_counts_are_numpys_on_the_concatenated_data(batches: list[list[int]]) -> None:
    scaled = [np.array(b) / 1024 for b in batches]
    found = histogram(*scaled)
    everything = np.concatenate(scaled)
    expected, _ = np.histogram(everything, BINS, (-found.span, found.span))
    assert (found.counts.numpy() == expected).all()
    assert (found.lo, found.hi) == (everything.min(), everything.max())


@settings(max_examples=60, deadline=None)
@given(BATCHES, st.randoms())
def test_order_of_batches_does_not_matter(batches: list[list[int]], random: st.DataObject) -> None:
    scaled = [np.array(b) / 1024 for b in batches]
    first = histogram(*scaled)
    random.shuffle(scaled)
    second = histogram(*scaled)
    assert torch.equal(first.counts, second.counts)
    assert (first.lo, first.hi) == (second.lo, second.hi)


def test_memory_does_not_grow_with_samples_or_range() -> None:
    found = Histogram()
    sizes = set()
    for exponent in range(-30, 30, 4):
        found.add(torch.full((1000,), 2.0**exponent))
        sizes.add(found.counts.numel())
    assert sizes == {BINS}
    assert found.counts.sum() == 15 * 1000


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused_and_not_counted(value: float) -> None:
    found = histogram([1.5])
    with pytest.raises(ValueError, match="not finite"):
        found.add(torch.tensor([0.0, value]))
    assert found.counts.sum() == 1
    assert found.hi == 1.5


def test_nothing_seen_has_no_range() -> None:
    found = Histogram()
    found.add(torch.zeros(0, 3))
    with pytest.raises(ValueError, match="no value"):
        found.range("minmax")


@pytest.mark.parametrize("observer", get_args(Observer))
def test_a_constant_is_its_own_range(observer: str) -> None:
    found = histogram([3.25] * 5).range(observer)
    assert (found.lo, found.hi) == (3.25, 3.25)


def test_minmax_is_what_was_seen() -> None:
    x = samples("heavy_tail")
    found = histogram(x[:1000], x[1000:]).range("minmax")
    assert (found.lo, found.hi) == (x.min(), x.max())


@pytest.mark.parametrize(
    "kind", ["normal", "heavy_tail", "relu", "silu", "one_outlier", "negative"]
)
def test_mse_range_is_near_the_best_by_brute_force(kind: str) -> None:
    x = samples(kind)
    lo, hi = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    ends = product(lo * SHRUNK if lo else [0.0], hi * SHRUNK if hi else [0.0])
    best = min(raw_error(x, low, high) for low, high in ends)
    found = histogram(x).range("mse")
    error = raw_error(x, found.lo, found.hi)
    assert error <= 1.05 * best
    assert error <= 1.001 * raw_error(x, lo, hi)


def test_mse_clips_an_outlier_but_keeps_the_hard_end_of_silu() -> None:
    many = np.random.default_rng(7).standard_normal(500_000)
    clipped = histogram(many, [12.0]).range("mse")
    assert clipped.hi < 9
    x = samples("silu")
    assert histogram(x).range("mse").lo == pytest.approx(x.min(), rel=0.05)


@pytest.mark.parametrize("shape", [(8, 96, 33, 32), (4, 3, 224, 224), (2, 64, 64, 64)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_of_a_large_batch_every_channel_and_column_counts(
    shape: tuple[int, int, int, int], layout: torch.memory_format
) -> None:
    for axis in (1, 3):
        # A value for each place on the axis, in a bin of its own.
        places = torch.arange(shape[axis], dtype=torch.float32) / 512
        x = places.view([-1 if a == axis else 1 for a in range(4)]).expand(shape)
        found = histogram(x.contiguous(memory_format=layout))
        exact, _ = np.histogram(x.numpy(), BINS, (-found.span, found.span))
        counts = found.counts.numpy()
        assert (found.lo, found.hi) == (0, float(places[-1]))
        # In all they weigh as much as all values, each place nearly as much as any other.
        assert counts.sum() == pytest.approx(x.numel(), rel=1e-3)
        assert np.abs(counts[exact > 0] / exact[exact > 0] - 1).max() < 0.05
