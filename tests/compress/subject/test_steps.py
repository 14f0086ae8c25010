"""Steps of sequences: which of them, and with which state."""

import numpy as np
import pytest
from torch import Tensor, nn

from edgedl.compress.pipeline import compress
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.subject.score import score_module
from edgedl.compress.subject.steps import OF_A_SEQUENCE, StepTask, by_steps, over_sequences
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import load_target
from edgedl.runtime.bundle.state import State
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.task import ArrayTask, Samples

LENGTH = 16


class Sum(nn.Module):
    """Returns the sum of all that it was given."""

    def forward(self, x: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        return x + total.unsqueeze(1), total + x.squeeze(1)


def sums(count: int = 20, length: int = LENGTH) -> ArrayTask:
    values = np.random.default_rng(0).normal(size=(count, length, 3)).astype(np.float32)
    samples = Samples((values,), np.cumsum(values, 1))
    return ArrayTask(
        "sums",
        {"calibration": lambda: samples, "test": lambda: samples},
        "exact",
        lambda y, labels: np.asarray(
            [np.allclose(a, b, atol=1e-4) for a, b in zip(y[0], labels, strict=True)], np.float64
        ),
    )


STATES = (State("total", "add_1", (3,)),)


@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000])
def test_steps_have_the_state_of_their_place(batch_size: int) -> None:
    batches = list(StepTask(sums(), Sum(), STATES).batches("test", batch_size))
    assert all(len(b.labels) == batch_size for b in batches[:-1])
    x, before = (np.concatenate([b.inputs[i] for b in batches]) for i in (0, 1))
    labels = np.concatenate([b.labels for b in batches])
    assert (len(x), x.shape[1:], before.shape[1:]) == (20 * OF_A_SEQUENCE, (1, 3), (3,))
    np.testing.assert_allclose(before[:, None] + x, labels, atol=1e-4)
    assert len(np.unique(labels[:, 0, 0])) == len(labels)


def test_sequences_shorter_than_the_steps_taken_of_one() -> None:
    batches = list(StepTask(sums(length=3), Sum(), STATES).batches("test", 100))
    assert sum(len(b.labels) for b in batches) == 20 * 3


def test_a_module_over_sequences_begins_with_zeros() -> None:
    subject = Subject("sum", Sum(), sums(), states=STATES)
    assert score_module(over_sequences(subject), subject.task).mean() == 1.0
    plain = Subject("sum", Sum(), sums())
    assert over_sequences(plain) is plain.module
    assert by_steps(plain) is plain


@pytest.mark.slow
def test_states_that_are_not_the_last_ones(tmp_path) -> None:
    subject = Subject("sum", Sum(), sums(), states=(State("x", "add", (3,)),))
    with pytest.raises(BadInputError, match=r"the inputs \['x'\]: they must be the last inputs"):
        compress(subject, load_recipe("float"), (load_target("ort"),), tmp_path)
