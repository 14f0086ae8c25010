"""Drops of scores that are not 0 or 1: when there is an interval, and what would decide."""

import math

import numpy as np
import pytest

from edgedl.runtime.measure.score_intervals import (
    FEWEST_GRADED,
    MOST_SAMPLES,
    paired_drop,
    samples_to_decide,
)


@pytest.mark.parametrize("count", [1, 4, FEWEST_GRADED - 1])
def test_few_graded_scores_prove_nothing(count: int) -> None:
    baseline = np.random.default_rng(count).uniform(0.5, 1.0, count)
    for candidate in (baseline, baseline - 0.01, baseline + 0.01):
        found = paired_drop(baseline, candidate)
        assert found.value == pytest.approx(np.mean(baseline - candidate))
        assert (found.lo, found.hi) == (-math.inf, math.inf)
        missing = FEWEST_GRADED - count
        # At the limit too: what few samples say of the mean is not known.
        for limit in (found.value, 0.5):
            assert samples_to_decide(baseline, candidate, limit) == missing


def test_few_scores_of_0_and_1_have_tangos_interval() -> None:
    for count in (1, 4):
        found = paired_drop(np.ones(count), np.ones(count))
        # Tango's interval without a flip ends at z^2 / (n + z^2).
        assert found.hi == pytest.approx(1.959964**2 / (count + 1.959964**2))
        assert found.lo == pytest.approx(-found.hi)


@pytest.mark.slow
def test_the_fewest_samples_cover_skewed_drops_nine_times_in_ten() -> None:
    """Where the interval begins to exist it holds; with a quarter of them it would not."""
    rng, covered, runs = np.random.default_rng(0), 0, 200
    for seed in range(runs):
        lost = rng.exponential(0.02, FEWEST_GRADED)
        found = paired_drop(np.full(FEWEST_GRADED, 0.9), 0.9 - lost, seed)
        covered += found.lo <= 0.02 <= found.hi
    assert covered >= 0.88 * runs


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e4])
@pytest.mark.parametrize("limit", [0.012, 0.03])
def test_as_many_more_graded_samples_decide_on_any_scale(limit: float, scale: float) -> None:
    """Repeat what was seen until there are that many: the interval must end at the limit."""
    lost = scale * np.random.default_rng(1).normal(0.02, 0.1, 100)
    lost += scale * 0.02 - lost.mean()
    more = samples_to_decide(lost, np.zeros(100), scale * limit)
    assert more is not None

    def decided(count: int) -> bool:
        found = paired_drop(np.resize(lost, count), np.zeros(count))
        return found.hi <= scale * limit or found.lo > scale * limit

    assert not decided(100)
    assert decided(100 * round(1.2 * (100 + more) / 100))
    assert not decided(100 * round(0.8 * (100 + more) / 100))


def test_a_number_of_samples_that_nobody_has_is_not_an_answer() -> None:
    lost = np.random.default_rng(1).normal(0.02, 0.1, 100)
    binary = np.ones(1000), np.r_[np.zeros(10), np.ones(990)]
    # From about 4 (0.1 s / distance)^2, or 4 0.01 / distance^2, twice the most there are.
    for scores, mean in (((lost, np.zeros(100)), lost.mean()), (binary, 0.01)):
        spread = np.std(scores[0] - scores[1])
        near = 1.96 * spread / math.sqrt(2 * MOST_SAMPLES)
        assert samples_to_decide(*scores, mean + near / 2) is None
        found = samples_to_decide(*scores, mean + 2 * near)
        assert found is not None
        assert found == pytest.approx(MOST_SAMPLES / 2, rel=0.1)
