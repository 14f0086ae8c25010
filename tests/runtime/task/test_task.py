"""Tasks over arrays: batches put together again are the split, and scores are checked."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, top_k_accuracy_score
from tiny import CLASSES, make_task, pictures

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.preprocess.image import ImagePreprocessing
from edgedl.runtime.task.task import (
    UNKNOWN,
    ArrayTask,
    Batch,
    Samples,
    WrappedTask,
    top1,
    training_split,
    why_not_train,
    with_splits,
)


def plain_task(count, labels=None, **settings_):
    samples = Samples(
        (np.arange(count * 2.0).reshape(count, 2), np.arange(count)),
        np.arange(count) % 3 if labels is None else labels,
    )
    return ArrayTask("plain", {"test": lambda: samples}, **settings_)


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 50), batch_size=st.integers(1, 60))
def test_batches_are_the_split_in_order(count, batch_size):
    batches = list(plain_task(count).batches("test", batch_size))
    sizes = [len(b.labels) for b in batches]
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
    assert 0 < sizes[-1] <= batch_size
    for place, whole in enumerate((np.arange(count * 2.0).reshape(count, 2), np.arange(count))):
        joined = np.concatenate([b.inputs[place] for b in batches])
        np.testing.assert_array_equal(joined, whole)
    np.testing.assert_array_equal(np.concatenate([b.labels for b in batches]), np.arange(count) % 3)


def test_pictures_are_preprocessed():
    samples = pictures(7, 3)
    task = ArrayTask(
        "p", {"test": lambda: samples}, preprocessing=ImagePreprocessing(12, 12, "RGB")
    )
    found = np.concatenate([b.inputs[0] for b in task.batches("test", 3)])
    expected = samples.inputs[0].transpose(0, 3, 1, 2) / 255
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32


def test_only_the_first_input_is_a_picture():
    extra = np.arange(7)
    samples = Samples((pictures(7, 3).inputs[0], extra), extra)
    task = ArrayTask(
        "p", {"test": lambda: samples}, preprocessing=ImagePreprocessing(12, 12, "RGB")
    )
    (batch,) = task.batches("test", 7)
    assert batch.inputs[0].shape == (7, 3, 12, 12)
    assert batch.inputs[1] is not None
    np.testing.assert_array_equal(batch.inputs[1], extra)


@pytest.mark.parametrize(
    ("task", "split", "words"),
    [
        (make_task(), "train", ("'noise'", "'train'")),
        (make_task(), "", ("'noise'", "no split")),
        (plain_task(5, np.arange(4)), "test", ("4 labels", "[5, 5]")),
        (plain_task(5, np.arange(6)), "test", ("6 labels", "[5, 5]")),
        (plain_task(0), "test", ("0 labels",)),
    ],
)
def test_bad_split(refused, task, split, words):
    with refused(BadInputError, *words):
        list(task.batches(split, 2))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), count=st.integers(1, 40), classes=st.integers(2, 6))
def test_top1_against_scikit_learn(seed, count, classes):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, classes)).astype(np.float32)
    labels = rng.integers(0, classes, count)
    scores = top1([logits], labels)
    assert scores.dtype == np.float64
    assert set(scores) <= {0.0, 1.0}
    assert scores.mean() == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    if classes > 2:
        expected = top_k_accuracy_score(labels, logits, k=1, labels=np.arange(classes))
        assert scores.mean() == pytest.approx(expected)


def test_score_of_a_task():
    task = make_task()
    logits = np.eye(len(CLASSES), dtype=np.float32)
    assert task.score([logits], np.array([0, 1, 3, 3])).tolist() == [1.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    "score",
    [
        lambda outputs, labels: np.array([0.5, np.nan, 0.5]),
        lambda outputs, labels: np.array([0.5, np.inf, 0.5]),
        lambda outputs, labels: np.array([0.5, 0.5]),
        lambda outputs, labels: np.full((3, 1), 0.5),
        lambda outputs, labels: 0.5,
        lambda outputs, labels: [],
    ],
)
def test_score_that_is_not_one_number_per_sample(refused, score):
    task = plain_task(3, score_samples=score)
    with refused(BadInputError, "'plain'", "one finite number per sample", "[3]"):
        task.score([np.zeros((3, 2))], np.arange(3))


def test_own_score_function_sees_outputs_and_labels():
    def closeness(outputs, labels):
        return -np.abs(outputs[1][:, 0] - labels)

    task = plain_task(3, score_samples=closeness, metric="closeness")
    outputs = [np.zeros((3, 4)), np.array([[1.0], [2.5], [2.0]])]
    assert task.score(outputs, np.array([1, 2, 4])).tolist() == [0.0, -0.5, -2.0]


def test_stages_train_on_a_split_of_that_name_or_on_calibration():
    class Own:
        """A task of the user's own, which need not name its splits."""

    assert training_split(make_task()) == "calibration"
    assert training_split(Own()) == "calibration"
    Own.splits = ("calibration", "test", "train")
    assert training_split(Own()) == "train"


class Asked:
    """A task of the user's own that does not name its splits, and writes down what it gave."""

    name = "asked"

    def __init__(self, give):
        self.give, self.asked = give, []

    def batches(self, split, batch_size):
        self.asked.append((split, batch_size))
        for count in self.give(split):
            yield Batch((np.zeros((count, 2)),), np.zeros(count))


def test_a_task_that_names_no_splits_is_asked_for_one_training_sample_once():
    known = {"train": [1, 1], "calibration": [1], "test": [1]}
    task = Asked(lambda split: known[split])
    named = with_splits(task)
    assert task.asked == []
    assert [training_split(named) for _ in range(3)] == ["train"] * 3
    assert set(named.splits) == {"calibration", "test", "train"}
    assert task.asked == [("train", 1), (UNKNOWN, 1)]


def raise_(error):
    raise error


@pytest.mark.parametrize(
    ("give", "reason"),
    [
        (lambda split: raise_(KeyError(split)), "it raised KeyError: 'train'"),
        (lambda split: raise_(BadInputError("no train here")), "BadInputError: no train here"),
        (lambda split: raise_(OSError("a disk")), "it raised OSError: a disk"),
        (lambda split: [], "no samples for 'train'"),
        (lambda split: [0], "no samples for 'train'"),
        # What this one gives for "train" may be its test samples.
        (lambda split: [1] if split == "calibration" else [1, 1], "any name for a split"),
    ],
)
def test_what_gives_no_training_samples_has_no_such_split_and_says_why(give, reason):
    named = with_splits(Asked(give))
    assert set(named.splits) == {"calibration", "test"}
    assert training_split(named) == "calibration"
    assert "'asked' has no attribute 'splits'" in why_not_train(named)
    assert reason in why_not_train(named)


def test_a_task_that_names_its_splits_is_taken_at_its_word():
    task = Asked(lambda split: raise_(KeyError(split)))
    task.splits = ("calibration", "test")
    assert with_splits(task) is task
    assert training_split(task) == "calibration"
    assert task.asked == []
    assert why_not_train(task) == "task 'asked' names no split 'train'"


def test_a_wrapped_task_hands_everything_on():
    whole = make_task()
    wrapped = WrappedTask(whole)
    for name in ("name", "metric", "classes", "preprocessing", "splits"):
        assert getattr(wrapped, name) == getattr(whole, name)
    (batch,), (expected,) = (list(t.batches("test", 1000)) for t in (wrapped, whole))
    np.testing.assert_array_equal(batch.inputs[0], expected.inputs[0])
    outputs = [np.eye(len(CLASSES))[batch.labels]]
    assert wrapped.score(outputs, batch.labels).tolist() == [1.0] * len(batch.labels)
