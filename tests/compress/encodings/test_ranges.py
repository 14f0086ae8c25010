"""What each observer chooses, against numpy on the raw data and a loop over all candidates."""

import numpy as np
import pytest
import torch
from sampled_values import histogram, samples

from edgedl.compress.encodings.ranges import SHRINK

KINDS = ["normal", "heavy_tail", "relu", "silu", "one_outlier", "negative"]


def test_moving_average_is_that_of_every_batchs_ends() -> None:
    rng = np.random.default_rng(3)
    batches = [rng.standard_normal(50) * s for s in (1, 3, 0.5, 8)]
    lo, hi = batches[0].min(), batches[0].max()
    for batch in batches[1:]:
        lo = 0.95 * lo + 0.05 * batch.min()
        hi = 0.95 * hi + 0.05 * batch.max()
    found = histogram(*batches).range("moving_average")
    assert (found.lo, found.hi) == pytest.approx((lo, hi), rel=1e-6)


def test_moving_average_hardly_sees_one_wild_batch() -> None:
    calm = [np.linspace(-1, 1, 9)] * 20
    found = histogram(*calm, np.array([100.0])).range("moving_average")
    assert found.hi == pytest.approx(1 + 0.05 * 99, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9])
def test_percentile_is_numpys_to_a_bin(kind: str, percentile: float) -> None:
    x = samples(kind)
    tail = (100 - percentile) / 2
    seen = histogram(x)
    found = seen.range("percentile", percentile)
    expected = np.percentile(x, [tail, 100 - tail], method="inverted_cdf")
    width = 2 * seen.span / len(seen.counts)
    # Where values are sparse the next one may be some bins away: those it lies between count.
    near = [np.percentile(x, [max(t - 0.02, 0), min(t + 0.02, 100)]) for t in (tail, 100 - tail)]
    for value, exact, (low, high) in zip((found.lo, found.hi), expected, near, strict=True):
        assert min(exact, low) - width <= value <= max(exact, high) + width


def test_percentile_of_everything_is_minmax() -> None:
    x = samples("heavy_tail")
    found = histogram(x).range("percentile", 100.0)
    assert (found.lo, found.hi) == (x.min(), x.max())


def test_percentile_loses_the_same_mass_at_both_ends() -> None:
    x = np.concatenate([np.linspace(-1, 3, 9801), np.full(100, -50.0), np.full(100, 70.0)])
    found = histogram(x).range("percentile", 97.0)
    assert (x < found.lo).mean() == pytest.approx(0.015, abs=0.001)
    assert (x > found.hi).mean() == pytest.approx(0.015, abs=0.001)
    assert -1 < found.lo < -0.9
    assert 2.9 < found.hi < 3


def divergence(counts: list[float], centers: list[float], lo: float, hi: float) -> float:
    """Return KL(P || Q) as the docstring of ``least_divergence`` says it, bin by bin."""
    inside = [i for i, c in enumerate(centers) if lo <= c <= hi]
    p = {i: counts[i] for i in inside}
    p[inside[0]] += sum(counts[: inside[0]])
    p[inside[-1]] += sum(counts[inside[-1] + 1 :])
    members: dict[int, list[int]] = {}
    for i in inside:
        if counts[i] > 0:
            members.setdefault(min(int((centers[i] - lo) / (hi - lo) * 256), 255), []).append(i)
    q = dict.fromkeys(inside, 0.0)
    for level in members.values():
        for i in level:
            q[i] = sum(counts[j] for j in level) / len(level)
    total_p, total_q = sum(p.values()), sum(q.values())
    cost = 0.0
    for i in inside:
        if p[i] > 0:
            share = p[i] / total_p
            cost += share * np.log(share / max(q[i] / total_q, 1e-12))
    return cost


@pytest.mark.parametrize("kind", ["heavy_tail", "relu", "negative"])
def test_entropy_is_the_least_divergence_of_all_candidates(kind: str) -> None:
    x = samples(kind)
    seen = histogram(x)
    counts = seen.counts.tolist()
    zero = len(counts) // 2
    counts[zero] = min(counts[zero], max(counts[zero - 1], counts[zero + 1]))
    width = 2 * seen.span / len(counts)
    middles = [(i + 0.5) * width - seen.span for i in range(len(counts))]
    centers = [min(max(m, float(x.min())), float(x.max())) for m in middles]
    lo, hi = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    shares = [*SHRINK[::2], 1.0]
    if hi > 0:
        hi *= min(shares, key=lambda k: divergence(counts, centers, lo, hi * k))
    if lo < 0:
        lo *= min(shares, key=lambda k: divergence(counts, centers, lo * k, hi))
    found = seen.range("entropy")
    best, cost = (divergence(counts, centers, a, b) for a, b in ((lo, hi), (found.lo, found.hi)))
    assert cost <= best * 1.000001


def test_entropy_clips_an_outlier_and_keeps_asymmetry() -> None:
    rng = np.random.default_rng(7)
    x = np.concatenate([rng.uniform(-0.5, 4.0, 300_000), [12.0]])
    found = histogram(x).range("entropy")
    assert 3.5 < found.hi < 6
    assert -0.5 <= found.lo < -0.1


def test_exact_zeros_do_not_move_the_ends_of_entropy() -> None:
    x = np.abs(samples("normal"))
    zeros = np.zeros(60_000, np.float32)
    assert histogram(x, zeros).range("entropy") == histogram(x).range("entropy")


@pytest.mark.parametrize("observer", ["mse", "entropy", "percentile"])
@pytest.mark.parametrize("values", [[1.0, 1.0 + 2**-12], [0.0, 1e-7], [-3.0, 5.0]])
def test_a_range_lies_within_what_was_seen_and_zero(observer: str, values: list[float]) -> None:
    found = histogram(np.array(values)).range(observer)
    seen = np.float32(values)
    assert min(seen.min(), 0) <= found.lo <= found.hi <= max(seen.max(), 0)
    assert torch.isfinite(torch.tensor([found.lo, found.hi])).all()
