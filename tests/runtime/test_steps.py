"""Networks with a state against a loop by hand."""

import numpy as np
import pytest

from edgedl.runtime.bundle.state import State
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.steps import Steps, run_sequences

STATES = (State("sum", "next_sum", (2,)), State("last", "next_last", (1, 2)))


def add_up(x, total, last):
    """Return the running sum plus half of the input before, and both states."""
    return [x + total[:, None] + last / 2, total + x[:, 0], x]


@pytest.fixture
def sequences():
    return np.random.default_rng(0).normal(size=(5, 7, 2)).astype(np.float32)


def by_hand(x):
    before = np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], 1)
    return np.cumsum(x, 1) + before / 2


def test_every_step_sees_the_state_of_the_one_before(sequences):
    steps = Steps(add_up, STATES)
    found = [steps(sequences[:, t : t + 1])[0] for t in range(7)]
    np.testing.assert_allclose(np.concatenate(found, 1), by_hand(sequences), rtol=1e-5)


def test_after_reset_the_state_is_zero(sequences):
    steps = Steps(add_up, STATES)
    first = steps(sequences[:, :1])[0]
    steps(sequences[:, 1:2])
    steps.reset()
    np.testing.assert_array_equal(steps(sequences[:, :1])[0], first)


def test_another_number_of_sequences_is_refused(sequences):
    steps = Steps(add_up, STATES)
    steps(sequences[:, :1])
    with pytest.raises(BadInputError, match="of 4 sequences, those before were of 5: call reset"):
        steps(sequences[:4, :1])
    with pytest.raises(BadInputError, match="besides the state"):
        steps()


@pytest.mark.parametrize("count", [1, 3, 5])
def test_sequences_in_groups_are_the_same(sequences, count, monkeypatch):
    monkeypatch.setattr("edgedl.runtime.steps.MOST_VALUES", 4 * count)
    seen = []

    def network(*inputs):
        seen.append(len(inputs[0]))
        return add_up(*inputs)

    (found,) = run_sequences(network, STATES, [sequences])
    np.testing.assert_allclose(found, by_hand(sequences), rtol=1e-5)
    assert max(seen) == count
