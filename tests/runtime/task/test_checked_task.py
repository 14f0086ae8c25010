"""What a user's own data and score must be, and what is said where they are something else."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.checked_task import CheckedTask
from edgedl.runtime.task.scores import top1
from edgedl.runtime.task.task import ArrayTask, Batch, Samples

X, Y = np.zeros((4, 3), np.float32), np.arange(4)


def array_task(given: Any, **more: Any) -> ArrayTask:
    return ArrayTask("mine", {"test": lambda: given}, **more)


class Own:
    """A user's own task class, which gives whatever it is told to."""

    name, metric, classes, preprocessing = "mine", "score", (), None

    def __init__(self, given: Any, scores: Any = None) -> None:
        self._given, self._scores = given, scores

    def batches(self, split: str, batch_size: int) -> Any:
        return self._given

    def score(self, outputs: Sequence[Any], labels: NDArray[Any]) -> Any:
        return self._scores


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (X, "gave one ndarray float32 [4, 3]: it must give Samples(inputs, labels)"),
        (None, "gave None"),
        ((X, Y, Y), "gave a tuple of 3"),
        (Samples(X, Y), "the inputs of split 'test' of task 'mine' are one ndarray float32 [4, 3]"),  # type: ignore[arg-type]
        (Samples((X, X[:3]), Y), "4 labels but inputs of lengths [4, 3]"),
        (Samples((X,), np.float32(1)), "labels of split 'test' of task 'mine' is one float32"),
        (Samples(([[1.0], [1.0, 2.0]],), Y), "input 0 of split 'test' of task 'mine' is a list"),  # type: ignore[arg-type]
    ],
)
@pytest.mark.parametrize("own", [False, True])
def test_what_is_no_pair_of_inputs_and_labels_is_named(given: Any, said: str, own: bool) -> None:
    task = CheckedTask.of(Own([given])) if own else array_task(given)  # type: ignore[arg-type]
    with pytest.raises(BadInputError) as refused:
        list(task.batches("test", 2))
    assert said in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("given", [3, None])
def test_batches_that_are_none(given: Any) -> None:
    with pytest.raises(BadInputError, match=r"must yield Batch\(inputs, labels\)"):
        next(CheckedTask.of(Own(given)).batches("test", 2))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.array([0, 1, 2, 1]), "has the label 2, and the task has 2 classes: labels are 0 to 1"),
        (np.array([0, -1, 0, 1]), "has the label -1"),
        (np.array([0, 0.5, 0, 1]), "has the label 0.5"),
        (np.array(["a", "b", "a", "b"]), "are <U1: the metric top1 takes numbers"),
    ],
)
def test_labels_that_are_no_class(labels: NDArray[Any], said: str) -> None:
    task = array_task(Samples((X,), labels), classes=("a", "b"))
    with pytest.raises(BadInputError) as refused:
        next(task.batches("test", 1))
    assert said in str(refused.value)


def test_labels_of_another_metric_may_be_anything() -> None:
    task = array_task(Samples((X,), np.full(4, 255)), classes=("a", "b"), metric="iou")
    assert next(task.batches("test", 4)).labels.tolist() == [255] * 4


def test_top1_refuses_a_label_beyond_the_outputs() -> None:
    with pytest.raises(BadInputError, match="label 3, and the network has 3 outputs"):
        top1([np.zeros((4, 3))], Y)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (0.5, r"got shape \[\]"),
        ([0.5, 0.5], r"got shape \[2\]"),
        ([0.5, np.nan, np.inf, 1.0], "2 are not finite"),
        ({"a": 1}, "got a dict"),
        ([[1], [1, 2]], "got a list of 2"),
    ],
)
def test_scores_that_are_not_one_number_a_sample(scores: Any, said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        CheckedTask.of(Own([], scores)).score([], Y)  # type: ignore[arg-type]


def test_float64_inputs_become_float32_and_labels_stay() -> None:
    task = CheckedTask.of(array_task(Samples((X.astype(np.float64),), Y.astype(np.float64))))
    assert task.notes == ()
    batch = next(task.batches("test", 2))
    assert (batch.inputs[0].dtype, batch.labels.dtype) == (np.float32, np.float64)
    assert "cast to float32" in task.notes[0]


def test_lists_and_what_can_become_an_array_are_taken() -> None:
    import torch

    task = array_task((X.tolist(), torch.arange(4)))
    with pytest.raises(BadInputError, match="lengths"):
        next(task.batches("test", 2))
    batch = next(array_task(([torch.ones(4, 3)], Y.tolist())).batches("test", 2))
    assert isinstance(batch.inputs[0], np.ndarray)
    assert batch.labels.tolist() == [0, 1]


def test_what_a_task_lacks_is_listed() -> None:
    class Half:
        name = "half"

        def batches(self, split: str, batch_size: int) -> Iterator[Batch]:
            yield Batch((X,), Y)

    with pytest.raises(BadInputError, match="a Half, has no metric, classes, preprocessing, score"):
        CheckedTask.of(Half())  # type: ignore[arg-type]


def test_a_split_that_is_no_function_and_one_that_is_not_there() -> None:
    with pytest.raises(BadInputError, match="split 'test' of task 'mine' is a Samples: it must be"):
        ArrayTask("mine", {"test": Samples((X,), Y)})  # type: ignore[dict-item]
    with pytest.raises(BadInputError, match="no split 'tests', did you mean 'test'"):
        next(array_task(Samples((X,), Y)).batches("tests", 1))
