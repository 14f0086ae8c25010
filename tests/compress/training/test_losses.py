"""Losses of fine-tuning against numpy."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from small_networks import noise

from edgedl.compress.training.losses import fine_tuning_loss
from edgedl.compress.training.task_batches import Targets
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.task import ArrayTask

CLASSIFIER = ArrayTask("mine", {}, classes=("a", "b", "c"))
REGRESSION = ArrayTask("mine", {}, metric="error")
LABELS = torch.tensor([0, 2, 1, 1, 0])


def cross_entropy(logits: np.ndarray) -> float:
    return -log_softmax(logits, 1)[np.arange(5), LABELS.numpy()].mean()


def divergence(logits: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    p, q = (log_softmax(x / temperature, 1) for x in (teacher, logits))
    return (np.exp(p) * (p - q)).sum(1).mean() * temperature**2


@pytest.mark.parametrize("distil", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_classification_mixes_labels_and_teacher(distil: float, temperature: float) -> None:
    logits, teacher = noise(5, 3), 2 * noise(5, 3, seed=1)
    loss = fine_tuning_loss(CLASSIFIER, distil, temperature)
    expected = distil * divergence(logits.numpy(), teacher.numpy(), temperature)
    expected += (1 - distil) * cross_entropy(logits.numpy())
    found = float(loss((logits,), Targets(LABELS, (teacher,) if distil else ())))
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_teachers_own_answers_cost_nothing() -> None:
    logits = noise(5, 3)
    loss = fine_tuning_loss(CLASSIFIER, 1.0, 3.0)
    assert float(loss((logits,), Targets(LABELS, (logits,)))) == pytest.approx(0, abs=1e-6)


def test_other_tasks_are_held_against_all_of_the_teachers_outputs() -> None:
    outputs, teacher = (noise(5, 3), noise(5, 2, 2, seed=1)), (noise(5, 3, seed=2), noise(5, 2, 2))
    found = fine_tuning_loss(REGRESSION, 1.0, 1.0)(outputs, Targets(noise(5), teacher))
    # Few values, or few of each channel: the variance of the whole output.
    expected = sum(
        np.square((y - t).numpy()).mean() / t.numpy().var() if t.ndim == 2 else spread(y, t)
        for y, t in zip(outputs, teacher, strict=True)
    )
    assert float(found) == pytest.approx(expected, rel=1e-5)


def spread(y: torch.Tensor, t: torch.Tensor) -> float:
    variance = t.numpy().var((0, 2), keepdims=True)
    return float((np.square((y - t).numpy()) / variance).mean())


def test_boxes_in_pixels_do_not_outweigh_scores() -> None:
    """A tenth of its own spread costs the same in every channel, whatever the units."""
    teacher = noise(16, 5, 9) * torch.tensor([100.0, 100, 100, 0.1, 0.1])[:, None]
    loss = fine_tuning_loss(REGRESSION, 1.0, 1.0)
    costs = []
    for channel in range(5):
        outputs = teacher.clone()
        outputs[:, channel] += 0.1 * teacher[:, channel].std(correction=0)
        costs.append(float(loss((outputs,), Targets(noise(16), (teacher,)))))
    assert costs == pytest.approx([0.01 / 5] * 5, rel=0.1)


def test_a_teacher_that_says_one_thing_has_a_finite_loss() -> None:
    loss = fine_tuning_loss(REGRESSION, 1.0, 1.0)
    assert float(loss((torch.ones(1, 3),), Targets(noise(1), (torch.zeros(1, 3),)))) == 1.0


@pytest.mark.parametrize("distil", [0.0, 0.99])
def test_labels_without_a_known_loss_are_refused(distil: float) -> None:
    with pytest.raises(BadInputError, match="set distil to 1"):
        fine_tuning_loss(REGRESSION, distil, 1.0)


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_that_are_no_class_are_named(label: int) -> None:
    loss = fine_tuning_loss(CLASSIFIER, 0.5, 1.0)
    labels = torch.tensor([0, 1, label])
    with pytest.raises(BadInputError, match=f"{label}, the network has 3|from {label} to"):
        loss((noise(3, 3),), Targets(labels, (noise(3, 3),)))


@pytest.mark.parametrize("shape", [(5, 1), (5, 3), (4,)])
def test_labels_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    loss = fine_tuning_loss(CLASSIFIER, 0.5, 1.0)
    targets = Targets(torch.zeros(shape, dtype=torch.int64), (noise(5, 3),))
    with pytest.raises(BadInputError, match=r"logits \[5, 3\] it must be \[5\]"):
        loss((noise(5, 3),), targets)


def test_places_count_as_samples_do() -> None:
    logits, teacher = noise(2, 3, 4, 4), noise(2, 3, 4, 4, seed=1)
    labels = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(0))
    flat = [x.movedim(1, 3).reshape(-1, 3) for x in (logits, teacher)]
    loss = fine_tuning_loss(CLASSIFIER, 0.5, 2.0)
    found = loss((logits,), Targets(labels, (teacher,)))
    torch.testing.assert_close(found, loss((flat[0],), Targets(labels.flatten(), (flat[1],))))
    with pytest.raises(BadInputError, match="classes on axis 1"):
        fine_tuning_loss(CLASSIFIER, 1.0, 2.0)(
            (logits.movedim(1, 3),), Targets(labels, (teacher.movedim(1, 3),))
        )
