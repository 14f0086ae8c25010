"""What a subject is trained for: its own loss, its classes, or its teacher; and what is refused."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from listening import notes_to
from small_networks import Net
from torch import Tensor, nn

from edgedl.compress.distill.fine_tune import FineTune
from edgedl.compress.pipeline import compress
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.quantize.qat.train_quantized import TrainQuantized
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.recipe.recipe import Recipe
from edgedl.compress.stage import Stage
from edgedl.compress.state import ModelState, begin
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.task import ArrayTask, Batch, Samples

BATCHES = 64


def make_samples(labels: Callable[[np.ndarray], Any]) -> Callable[[], Samples]:
    x = np.random.default_rng(0).standard_normal((BATCHES, 6)).astype(np.float32)
    return lambda: Samples((x,), labels(x))


def nearness(outputs: Any, labels: np.ndarray) -> np.ndarray:
    return -np.abs(np.asarray(outputs[0])[:, 0] - labels.astype(np.float64))


def regression(loss: Any = None, labels: Any = lambda x: 100 * x[:, 0]) -> Subject:
    torch.manual_seed(0)
    splits = {name: make_samples(labels) for name in ("train", "calibration", "test")}
    task = ArrayTask("distance", splits, metric="nearness", score_samples=nearness)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2)).eval()
    return Subject("regression", net, task, loss=loss)


def own_loss(output: Tensor, labels: Tensor) -> Tensor:
    return F.mse_loss(output[:, 0], labels.float() / 100)


TUNE = FineTune(3, batch_size=16, distil=0.0, learning_rate=0.01)


def tuned(subject: Subject, stage: Stage = TUNE) -> tuple[ModelState, list[str]]:
    said: list[str] = []
    state = replace(begin(subject), progress=notes_to(said.append))
    return stage.apply(PruneChannels(0.5, multiple=1).apply(state)), said


@pytest.mark.slow
def test_a_regression_without_a_loss_learns_from_the_whole_network() -> None:
    done, said = tuned(regression())
    settings = done.history[-1].settings
    assert settings["weight_of_teacher"] == 1.0
    assert any("have no known loss, so it trains on the float network's answers" in s for s in said)
    longer, _ = tuned(regression(), FineTune(40, batch_size=16, distil=0.0, learning_rate=0.01))
    first, last = (s.history[-1].settings["last_loss"] for s in (done, longer))
    assert last < first  # type: ignore[operator]


def test_a_loss_of_the_users_own_is_what_is_trained() -> None:
    done, said = tuned(regression(own_loss), FineTune(60, batch_size=16, distil=0.0))
    assert "weight_of_teacher" not in done.history[-1].settings
    assert not [s for s in said if "no known loss" in s]
    (x,), labels = make_samples(lambda x: 100 * x[:, 0])()
    with torch.no_grad():
        after = done.graph(torch.from_numpy(x))
        before = regression().module(torch.from_numpy(x))
    assert own_loss(after, torch.from_numpy(labels)) < 0.3 * own_loss(
        before, torch.from_numpy(labels)
    )


def test_several_outputs_reach_the_loss_as_a_tuple() -> None:
    seen: list[Any] = []

    def loss(outputs: Any, labels: Tensor) -> Tensor:
        seen.append(outputs)
        return (outputs[0] - labels.float()[:, None] / 100).square().mean() + outputs[
            1
        ].square().mean()

    net = Net(
        lambda m, x: (m.one(m.wide(x).relu()), m.two(m.wide(x).relu())),
        wide=nn.Linear(6, 8),
        one=nn.Linear(8, 1),
        two=nn.Linear(8, 3),
    )
    tuned(replace(regression(loss), module=net.eval()))
    assert {tuple(y.shape[1:] for y in outputs) for outputs in seen} == {((1,), (3,))}


@pytest.mark.parametrize("stage", [TUNE, TrainQuantized(1, 32, 16, distil=0.0)])
@pytest.mark.parametrize(
    ("loss", "labels", "message"),
    [
        (lambda y, t: y[:, 0] - t, lambda x: x[:, 0], r"returns \[2\]: it must return a tensor of"),
        (lambda y, t: 0.5, lambda x: x[:, 0], "returns float"),
        (lambda y, t: y.detach().mean(), lambda x: x[:, 0], "has no gradient"),
        (lambda y, t: y.mean() / 0, lambda x: x[:, 0], "is -?inf on its first training samples"),
        (
            lambda y, t: F.mse_loss(y, t["boxes"]),
            lambda x: x[:, 0],
            r"raises IndexError in test_subject_loss.py, line \d+ for outputs \[2, 2\] and labels",
        ),
        (own_loss, lambda x: np.array([f"{v}" for v in x[:, 0]]), "training takes numbers"),
    ],
)
def test_what_cannot_be_trained_is_said_before_any_work(
    stage: Stage, loss: Any, labels: Any, message: str, tmp_path: Path
) -> None:
    subject = regression(loss, labels)
    said: list[str] = []
    recipe = Recipe("", (PruneChannels(0.5, multiple=1), QuantizeStatic(32, 32), stage))
    if stage is TUNE:
        recipe = Recipe("", (PruneChannels(0.5, multiple=1), stage))
    with pytest.raises(BadInputError, match=message):
        compress(subject, recipe, (ORT,), tmp_path, progress=notes_to(said.append))
    assert not [s for s in said if "prune" in s]


@pytest.mark.slow
def test_labels_that_are_no_numbers_do_not_matter_to_a_teacher() -> None:
    """Boxes of any number for each picture: only the user's score reads them."""

    class Boxes(ArrayTask):
        def batches(self, split: str, batch_size: int) -> Iterator[Batch]:
            for batch in super().batches(split, batch_size):
                boxes = np.empty(len(batch.labels), object)
                boxes[:] = [np.zeros((k % 3, 4)) for k in range(len(boxes))]
                yield Batch(batch.inputs, boxes)

    subject = regression()
    task = Boxes("boxes", subject.task.splits, metric="map", score_samples=nearness)  # type: ignore[arg-type]
    stage = FineTune(1, batch_size=16, distil=0.0)
    stage.check_subject(replace(subject, task=task))
    done, _ = tuned(replace(subject, task=task), stage)
    assert done.history[-1].settings["weight_of_teacher"] == 1.0


def test_labels_beyond_the_classes_are_said_before_any_work() -> None:
    subject = regression(labels=lambda x: np.full(len(x), 7))
    classes = replace(subject.task, metric="top1")  # type: ignore[type-var]
    with pytest.raises(BadInputError, match="labels go from 7 to 7, the network has 2 classes"):
        FineTune(1, distil=0.5).check_subject(replace(subject, task=classes))
    FineTune(1, distil=1.0).check_subject(replace(subject, task=classes))


def test_importance_by_the_users_loss() -> None:
    stage = PruneChannels(0.5, multiple=1, importance="taylor", samples=32)
    with pytest.raises(BadInputError, match="give the Subject a loss"):
        stage.check_subject(regression())
    stage.check_subject(regression(own_loss))
    assert stage.apply(begin(regression(own_loss))).history


def test_a_loss_is_a_function() -> None:
    with pytest.raises(BadInputError, match="the loss of the subject 'regression' is str"):
        regression("mse")
