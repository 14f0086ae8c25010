"""Teachers besides the network itself: ensembles, and answers that do not fit."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from small_networks import Net, noise
from torch import nn

from edgedl.compress.distill.teachers import Ensemble, one_teacher
from edgedl.runtime.errors import BadInputError

X = (noise(6, 5),)
STUDENT = nn.Linear(5, 3)


def members(count: int, classes: int = 3) -> tuple[nn.Module, ...]:
    torch.manual_seed(3)
    return tuple(nn.Linear(5, classes) for _ in range(count))


def answers(module: nn.Module) -> np.ndarray:
    with torch.no_grad():
        return (module(*X)).double().numpy()


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_an_ensemble_says_the_mean_of_softened_probabilities(
    temperature: float, count: int
) -> None:
    several = members(count)
    with torch.no_grad():
        (logits,) = Ensemble(several, temperature)(*X)
    expected = np.mean([softmax(answers(m) / temperature, 1) for m in several], 0)
    np.testing.assert_allclose(softmax(logits.numpy() / temperature, 1), expected, rtol=1e-5)


def test_without_classes_an_ensemble_says_the_mean() -> None:
    several = members(3)
    with torch.no_grad():
        (outputs,) = Ensemble(several, None)(*X)
    np.testing.assert_allclose(outputs, np.mean([answers(m) for m in several], 0), rtol=1e-5)


def test_confident_members_overflow_nothing() -> None:
    logits = torch.tensor([[500.0, -500.0]])
    one, other = Net(lambda m, x: logits), Net(lambda m, x: -logits)
    (found,) = Ensemble((one, other), 1.0)(logits)
    torch.testing.assert_close(found.softmax(1), torch.tensor([[0.5, 0.5]]))


def test_one_teacher_teaches_alone_and_several_together() -> None:
    (alone,) = members(1)
    assert one_teacher((alone.train(),), STUDENT, X, 2.0) is alone
    assert not alone.training
    together = one_teacher(members(2), STUDENT, X, 2.0)
    assert isinstance(together, Ensemble)
    assert together.temperature == 2.0


def test_no_members() -> None:
    with pytest.raises(BadInputError, match="at least one"):
        Ensemble((), 1.0)


def test_a_teacher_with_other_classes() -> None:
    with pytest.raises(BadInputError, match=r"teacher has 7 classes, the network for 3"):
        one_teacher(members(1, 7), STUDENT, X, 1.0)
    with pytest.raises(BadInputError, match=r"teacher 1 has 4 classes"):
        one_teacher((*members(1), *members(1, 4)), STUDENT, X, 1.0)


def test_a_teacher_with_other_outputs() -> None:
    pairs = Net(lambda m, x: (m.fc(x), m.fc(x)), fc=nn.Linear(5, 3))
    with pytest.raises(BadInputError, match=r"returns \[\[6, 3\], \[6, 3\]\], the network"):
        one_teacher((pairs,), STUDENT, X, 1.0)
    with pytest.raises(BadInputError, match=r"returns \[\[6, 7\]\], the network \[\[6, 3\]\]"):
        one_teacher(members(1, 7), STUDENT, X, None)


def test_a_teacher_of_other_inputs() -> None:
    with pytest.raises(BadInputError, match=r"does not take the inputs of the network, \[\[6, 5\]"):
        one_teacher((nn.Linear(4, 3),), STUDENT, X, 1.0)
