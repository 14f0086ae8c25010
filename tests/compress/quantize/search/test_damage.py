"""Noise, task loss and score against loops over numpy arrays."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import noise, noise_task
from tiny import make_task

from edgedl.compress.quantize.search.damage import DamageMeter, labelled_batches, task_loss
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.task import ArrayTask, Batch, Samples

ROWS = np.arange(34, dtype=np.float32).reshape(17, 2)
ROWS_TASK = ArrayTask("rows", {"calibration": lambda: Samples((ROWS, -ROWS), np.arange(17))})


def test_a_classifiers_loss_is_the_divergence_of_its_probabilities():
    exact, found = noise(6, 4, seed=1), noise(6, 4, seed=2)
    total = 0.0
    for a, b in zip(exact.numpy().astype(float), found.numpy().astype(float), strict=True):
        p, q = (np.exp(y) / np.exp(y).sum() for y in (a, b))
        total += sum(p[k] * math.log(p[k] / q[k]) for k in range(4))
    assert task_loss(make_task(), [exact], [found]) == pytest.approx(total / 6)
    assert task_loss(make_task(), [exact], [exact]) == 0


def test_the_loss_of_others_is_the_mean_squared_error_of_all_outputs():
    exact, found = [noise(3, 2), noise(3, 5, seed=1)], [noise(3, 2, seed=2), noise(3, 5, seed=3)]
    squares = [
        (float(b) - float(a)) ** 2
        for e, f in zip(exact, found, strict=True)
        for a, b in zip(e.flatten(), f.flatten(), strict=True)
    ]
    expected = sum(squares) / 21
    assert task_loss(noise_task((2,)), exact, found) == pytest.approx(expected)
    # Four classes, but not one logit for each.
    assert task_loss(make_task(), exact, found) == pytest.approx(expected)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_batches_add_up(sizes: list[int]):
    total = sum(sizes)
    exact, found = noise(total, 4, seed=3), noise(total, 4, seed=4)
    labels = np.arange(total) % 4
    task, start = make_task(), 0
    meter = DamageMeter(task)
    for size in sizes:
        part = slice(start, start + size)
        meter.add([exact[part]], [found[part]], Batch((), labels[part]))
        start += size
    damage = meter.result()
    a, b = exact.numpy().astype(float), found.numpy().astype(float)
    signal, error = (a**2).sum(), ((a - b) ** 2).sum()
    assert damage.sqnr_db == pytest.approx(10 * math.log10(signal / error))
    assert damage.score == pytest.approx((b.argmax(1) == labels).mean())
    expected_flips = (b.argmax(1) == labels) != (a.argmax(1) == labels)
    assert damage.flips == pytest.approx(expected_flips.mean())
    assert damage.loss == pytest.approx(task_loss(task, [exact], [found]))


def test_no_noise_and_no_signal():
    meter = DamageMeter(make_task())
    meter.add([torch.zeros(2, 4)], [torch.zeros(2, 4)], Batch((), np.zeros(2)))
    assert meter.result().sqnr_db == math.inf
    meter.add([torch.zeros(2, 4)], [torch.ones(2, 4)], Batch((), np.zeros(2)))
    assert meter.result().sqnr_db == -math.inf


@given(st.integers(1, 25), st.integers(1, 25))
def test_the_first_samples_come_with_their_labels(samples: int, batch_size: int):
    batches = list(labelled_batches(ROWS_TASK, samples, batch_size))
    count = min(samples, 17)
    assert np.array_equal(np.concatenate([b.labels for b in batches]), np.arange(count))
    assert np.array_equal(np.concatenate([b.inputs[1] for b in batches]), -ROWS[:count])
    assert all(len(b.inputs[0]) == len(b.labels) for b in batches)


def test_no_samples_are_refused():
    class Empty:
        def batches(self, split: str, batch_size: int):
            return iter(())

    with pytest.raises(BadInputError, match="no calibration samples"):
        list(labelled_batches(Empty(), 5, 2))
