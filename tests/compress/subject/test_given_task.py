"""Which score suits the data, and what is refused before any work."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgedl.compress.subject.check_subject import check_subject
from edgedl.compress.subject.given_task import GivenTask
from edgedl.compress.subject.subject import Subject
from edgedl.runtime.errors import BadInputError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((10, 3, 8, 8)).astype(np.float32)
CLASSES, PIXELS = np.arange(10) % 4, RNG.integers(0, 4, (10, 8, 8))


def logits() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval()


def maps() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(3, 4, 1).eval()


class Embedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside = logits()

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(self.inside(x))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside = logits()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.inside(x)
        return y, y.exp()


def task(module: nn.Module, test: object = None, calibration: object = X, **rest: Any) -> GivenTask:
    train = rest.pop("train", None)
    data = {"calibration": calibration, "test": test, "train": train}
    return GivenTask("mine", module, data, **rest)


def outputs(module: nn.Module) -> list[Any]:
    with torch.no_grad():
        found = module(torch.from_numpy(X))
    return [y.numpy() for y in (found if isinstance(found, tuple) else (found,))]


def mean(made: GivenTask, module: nn.Module) -> float:
    """Return the float network's score over the whole test split."""
    scores = []
    for batch in made.batches("test", 3):
        with torch.no_grad():
            found = module(torch.from_numpy(batch.inputs[0]))
        every = found if isinstance(found, tuple) else (found,)
        scores.append(made.score([y.numpy() for y in every], batch.labels))
    return float(np.concatenate(scores).mean())


def test_classes_are_scored_by_top1() -> None:
    made, found = task(logits(), (X, CLASSES)), outputs(logits())[0]
    assert (made.metric, made.classes) == ("top1", ("0", "1", "2", "3"))
    assert mean(made, logits()) == pytest.approx((found.argmax(1) == CLASSES).mean())


def test_classes_of_pixels() -> None:
    made, found = task(maps(), (X, PIXELS)), outputs(maps())[0]
    assert (made.metric, made.classes) == ("accuracy", ())
    assert mean(made, maps()) == pytest.approx((found.argmax(1) == PIXELS).mean())


def test_numbers_are_scored_by_the_coefficient_of_determination() -> None:
    wanted = outputs(logits())[0] + RNG.standard_normal((10, 4)).astype(np.float32)
    made = task(logits(), (X, wanted))
    error = np.square(outputs(logits())[0] - wanted).mean()
    assert made.metric == "r2"
    assert mean(made, logits()) == pytest.approx(1 - error / wanted.var(), rel=1e-4)


@pytest.mark.parametrize("kind", [np.int64, np.bool_, np.float32])
@pytest.mark.parametrize("probabilities", [False, True])
def test_one_logit_and_labels_of_0_and_1_are_scored_as_classes(
    kind: Any, probabilities: bool
) -> None:
    torch.manual_seed(1)
    layers = [nn.Flatten(), nn.Linear(192, 1), *([nn.Sigmoid()] if probabilities else [])]
    module = nn.Sequential(*layers).eval()
    wanted = (CLASSES > 1).astype(kind)
    found = outputs(module)[0][:, 0] > (0.5 if probabilities else 0)
    made = task(module, (X, wanted))
    assert made.metric == "binary_accuracy"
    assert mean(made, module) == pytest.approx((found == wanted.astype(bool)).mean())


def test_pixels_without_a_class_do_not_count() -> None:
    labels = PIXELS.copy()
    labels[:, :4] = 255
    found = outputs(maps())[0].argmax(1)
    assert mean(task(maps(), (X, labels)), maps()) == pytest.approx(
        (found[:, 4:] == PIXELS[:, 4:]).mean()
    )


def test_a_score_by_name_compares_with_the_float_network() -> None:
    made = task(logits(), (X, CLASSES), score="sqnr")
    assert made.metric == "sqnr"
    assert mean(made, logits()) == pytest.approx(1.0)


def test_the_users_score_gets_the_output_itself() -> None:
    def hits(y: Any, labels: Any) -> Any:
        return y.argmax(1) == labels

    made = task(logits(), (X, CLASSES), score=hits)
    assert made.metric == "hits"
    assert mean(made, logits()) == pytest.approx((outputs(logits())[0].argmax(1) == CLASSES).mean())


def test_the_users_score_gets_a_tuple_of_several() -> None:
    seen: list[object] = []

    def first(y: Any, labels: Any) -> Any:
        seen.append(type(y))
        return np.ones(len(labels))

    mean(task(Pair(), (X, CLASSES), score=first), Pair())
    assert set(seen) == {tuple}


def test_without_labels_logits_are_scored_by_agreement() -> None:
    made = task(logits(), X)
    assert (made.metric, mean(made, logits())) == ("agreement", 1.0)
    assert "have no labels" in made.notes[0]


@pytest.mark.parametrize("module", [maps(), Embedding(), Pair()], ids=["maps", "embedding", "pair"])
def test_without_labels_other_outputs_are_scored_by_their_noise(module: nn.Module) -> None:
    made = task(module.eval(), X)
    assert made.metric == "sqnr"
    assert mean(made, module) == pytest.approx(1.0, abs=1e-6)
    batch = next(made.batches("test", 10))
    noisy = [y + 0.1 * RNG.standard_normal(y.shape) for y in outputs(module)]
    clean = np.concatenate([y.reshape(10, -1) for y in outputs(module)], 1)
    found = np.concatenate([y.reshape(10, -1) for y in noisy], 1)
    share = np.square(found - clean).sum(1) / np.square(clean).sum(1)
    np.testing.assert_allclose(
        made.score(noisy, batch.labels), np.maximum(0, 1 - share), rtol=1e-5, atol=1e-6
    )


def test_without_test_data_the_calibration_samples_are_shared() -> None:
    made = task(logits(), None, [(X[:3], CLASSES[:3]), (X[3:], CLASSES[3:])])
    splits = {s: np.concatenate([b.inputs[0] for b in made.batches(s, 2)]) for s in made.splits}
    np.testing.assert_array_equal(splits["calibration"], X[::2])
    np.testing.assert_array_equal(splits["test"], X[1::2])
    labels = np.concatenate([b.labels for b in made.batches("test", 4)])
    np.testing.assert_array_equal(labels, CLASSES[1::2])
    assert "every second calibration sample" in made.notes[0]


@pytest.mark.parametrize("size", [1, 3, 4, 10, 64])
def test_batches_have_the_size_that_is_asked_for(size: int) -> None:
    made = task(logits(), [(X[:1], CLASSES[:1]), (X[1:8], CLASSES[1:8]), (X[8:], CLASSES[8:])])
    found = list(made.batches("test", size))
    assert [len(b.labels) for b in found[:-1]] == [size] * (len(found) - 1)
    np.testing.assert_array_equal(np.concatenate([b.inputs[0] for b in found]), X)
    np.testing.assert_array_equal(np.concatenate([b.labels for b in found]), CLASSES)


def test_the_float_network_answers_in_small_batches_and_once() -> None:
    sizes = []

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = logits()

        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            y: Tensor = self.inside(x)
            return y

    many = np.tile(X, (20, 1, 1, 1))
    made = task(Counting().eval(), many)
    sizes.clear()
    for _ in range(2):
        labels = np.concatenate([b.labels for b in made.batches("test", 7)])
        np.testing.assert_array_equal(labels, np.tile(outputs(logits())[0].argmax(1), 20))
    assert sizes == [64, 64, 64, 8]


def test_batches_are_the_callers_own() -> None:
    made = task(logits(), (X.copy(), CLASSES.copy()))
    next(made.batches("test", 4)).inputs[0][:] = 0
    np.testing.assert_array_equal(next(made.batches("test", 4)).inputs[0], X[:4])


def test_calibration_without_labels_has_those_of_the_float_network() -> None:
    made = task(logits(), (X, CLASSES))
    labels = next(made.batches("calibration", 10)).labels
    np.testing.assert_array_equal(labels, outputs(logits())[0].argmax(1))


def test_float64_is_cast_with_a_note() -> None:
    subject = Subject("mine", logits(), task(logits(), (X.astype(np.float64), CLASSES)))
    assert any("cast to float32" in note for note in check_subject(subject))


def test_notes_reach_the_check() -> None:
    assert any(
        "no labels" in note for note in check_subject(Subject("m", logits(), task(logits(), X)))
    )


def score_of_text(y: object, labels: object) -> str:
    return "good"


WRONG: dict[str, tuple[nn.Module, object, dict[str, Any], str]] = {
    "labels of another size": (logits(), (X, np.zeros((10, 7))), {}, "fit no usual score"),
    "rows of one 1": (logits(), (X, np.eye(4)[CLASSES]), {}, r"give labels.argmax\(1\)"),
    "labels of calibration alone": (
        logits(),
        X,
        {"calibration": (X, CLASSES)},
        "test data have none",
    ),
    "a score without labels": (logits(), X, {"score": score_of_text}, "score= reads labels"),
    "a score that is no function": (logits(), (X, CLASSES), {"score": 3}, "score is a int"),
    "an unknown score": (logits(), (X, CLASSES), {"score": "sqnrr"}, "did you mean 'sqnr'"),
    "labels one wide": (logits(), (X, CLASSES[:, None]), {}, r"give labels.squeeze\(1\)"),
    "another shape": (logits(), (X[:, :2], CLASSES), {}, "cannot compute the inputs of the task"),
    "too few class names": (logits(), (X, CLASSES), {"classes": ["a", "b"]}, "2 classes are named"),
    "a class twice": (logits(), (X, CLASSES), {"classes": list("abca")}, "'a' is named twice"),
    "classes of numbers": (maps(), (X, PIXELS), {"classes": list("abcd")}, "leave them out"),
}


@pytest.mark.parametrize(("module", "test", "rest", "says"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_one_line(
    module: nn.Module, test: object, rest: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadInputError, match=says) as error:
        task(module, test, **rest)
    assert "\n" not in str(error.value)


def test_a_label_that_is_no_class_is_found_before_any_work() -> None:
    wrong: Sequence[int] = [9] * 10
    made = task(logits(), (X, np.array(wrong)))
    with pytest.raises(BadInputError, match="has the label 9"):
        check_subject(Subject("mine", logits(), made))
