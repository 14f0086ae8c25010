"""Losses of distillation against numpy loops, and what they must not depend on."""

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import noise
from torch import Tensor

from edgedl.compress.training.distances import (
    angle_wise,
    attention_distance,
    distance_wise,
    hint_distance,
    relational_distance,
)

Loss = Callable[[Tensor, Tensor], Tensor]


def huber(a: float, b: float) -> float:
    apart = abs(a - b)
    return apart**2 / 2 if apart <= 1 else apart - 0.5


def rows(x: Tensor) -> list[np.ndarray]:
    return [row.double().numpy().ravel() for row in x]


def mean_distance_wise(own: Tensor, wanted: Tensor) -> float:
    def relative(x: list[np.ndarray]) -> dict[tuple[int, int], float]:
        every = range(len(x))
        far = {(i, j): math.dist(x[i], x[j]) for i, j in product(every, every)}
        mean = sum(far.values()) / (len(x) * (len(x) - 1))
        return {pair: d / mean for pair, d in far.items()}

    a, b = relative(rows(own)), relative(rows(wanted))
    return sum(huber(a[pair], b[pair]) for pair in a) / len(a)


def mean_angle_wise(own: Tensor, wanted: Tensor) -> float:
    def cosine(x: list[np.ndarray], i: int, j: int, k: int) -> float:
        first, second = x[i] - x[j], x[k] - x[j]
        length = np.linalg.norm(first) * np.linalg.norm(second)
        return float(first @ second / length) if length > 1e-6 else 0.0

    a, b = rows(own), rows(wanted)
    triples = list(product(range(len(a)), repeat=3))
    return sum(huber(cosine(a, *t), cosine(b, *t)) for t in triples) / len(triples)


def mean_attention(own: Tensor, wanted: Tensor) -> float:
    def attention(picture: np.ndarray) -> np.ndarray:
        summed = np.zeros(picture.shape[1:])
        for channel in picture:
            summed += np.abs(channel) ** 2
        return summed / math.sqrt((summed**2).sum())

    pairs = zip(own.double().numpy(), wanted.double().numpy(), strict=True)
    return float(np.mean([math.sqrt(((attention(a) - attention(b)) ** 2).sum()) for a, b in pairs]))


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 6), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_relations_against_loops(count: int, width: int, other: int, seed: int) -> None:
    own, wanted = noise(count, width, seed=seed), 3 * noise(count, other, 2, seed=seed + 1) + 5
    expected = mean_distance_wise(own, wanted), mean_angle_wise(own, wanted)
    assert float(distance_wise(own, wanted)) == pytest.approx(expected[0], rel=1e-3, abs=1e-5)
    assert float(angle_wise(own, wanted)) == pytest.approx(expected[1], rel=1e-3, abs=1e-4)
    both = float(relational_distance(own, wanted))
    assert both == pytest.approx(expected[0] + 2 * expected[1], rel=1e-3, abs=1e-4)


def test_relations_are_of_many_values_as_of_few() -> None:
    # Far from zero, as features after a ReLU are.
    own, wanted = noise(6, 16, 10, 10) + 30, 0.1 * noise(6, 24, 10, 10, seed=1) + 9
    assert float(distance_wise(own, wanted)) == pytest.approx(
        mean_distance_wise(own, wanted), rel=1e-3
    )
    assert float(angle_wise(own, wanted)) == pytest.approx(mean_angle_wise(own, wanted), rel=1e-3)


@pytest.mark.parametrize("widths", [(3, 3), (3, 7)])
def test_attention_against_loops(widths: tuple[int, int]) -> None:
    own, wanted = noise(4, widths[0], 5, 6), noise(4, widths[1], 5, 6, seed=1)
    assert float(attention_distance(own, wanted)) == pytest.approx(
        mean_attention(own, wanted), rel=1e-5
    )


def test_hints_are_squared_differences() -> None:
    own, wanted = noise(4, 3, 2), noise(4, 3, 2, seed=1)
    expected = np.mean((own.numpy() - wanted.numpy()) ** 2)
    assert float(hint_distance(own, wanted)) == pytest.approx(float(expected), rel=1e-6)


def test_relations_do_not_see_where_and_how_large_the_features_are() -> None:
    own = noise(8, 5)
    turn = torch.linalg.qr(noise(5, 5, seed=2)).Q
    moved = 7 * own @ turn + 3
    assert float(relational_distance(moved, own)) == pytest.approx(0, abs=1e-6)
    # Another length of one axis is another shape of the batch.
    assert float(relational_distance(own * torch.tensor([9.0, 1, 1, 1, 1]), own)) > 0.01


def test_attention_does_not_see_scale_and_sign() -> None:
    own = noise(3, 4, 5, 5)
    assert float(attention_distance(-4 * own, own)) == pytest.approx(0, abs=1e-6)
    assert float(attention_distance(own.flip(3), own)) > 0.1


@pytest.mark.parametrize("loss", [relational_distance, attention_distance])
def test_dead_and_coincident_features_have_finite_slopes(loss: Loss) -> None:
    dead = torch.zeros(4, 3, 2, 2, requires_grad=True)
    twice = noise(2, 3, 2, 2).repeat(2, 1, 1, 1).requires_grad_()
    for own in (dead, twice):
        value = loss(own, noise(4, 3, 2, 2, seed=1))
        value.backward()
        assert own.grad is not None
        assert torch.isfinite(own.grad).all()
        assert math.isfinite(value.item())


@pytest.mark.parametrize(
    "loss", [hint_distance, attention_distance, distance_wise, angle_wise, relational_distance]
)
def test_following_the_slope_leads_to_the_teacher(loss: Loss) -> None:
    wanted = noise(6, 4, 3, 3, seed=1)
    own = noise(6, 4, 3, 3).requires_grad_()
    optimizer = torch.optim.Adam([own], 0.05)
    values = []
    for _ in range(150):
        optimizer.zero_grad()
        value = loss(own, wanted)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.1 * values[0]
