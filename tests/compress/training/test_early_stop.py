"""Runs that stop when nothing gets better, and end with the weights of their best epoch."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training_blobs import SETTINGS, Blobs, assert_same_weights, make_module

from edgedl.compress.training import TrainingDivergedError, train


def scripted(values: list[float]) -> tuple[Callable[[nn.Module], float], list[nn.Module]]:
    """Return a score that says what it is told, and copies of the modules it was shown."""
    shown: list[nn.Module] = []

    def score(module: nn.Module) -> float:
        assert not module.training
        copy = make_module(norm=True)
        copy.load_state_dict(module.state_dict())
        shown.append(copy)
        return values[len(shown) - 1]

    return score, shown


@pytest.mark.parametrize("decay", [None, 0.9])
def test_a_score_that_does_not_rise_stops_the_run_at_its_best(decay: float | None) -> None:
    settings = replace(SETTINGS, epochs=9, patience=2, ema_decay=decay)
    score, shown = scripted([0.1, 0.5, 0.5, 0.4])
    module = make_module(norm=True)
    records = train(module, Blobs(), F.cross_entropy, settings, score=score)
    assert [r.score for r in records] == [0.1, 0.5, 0.5, 0.4]
    assert_same_weights(module, shown[1])
    assert not torch.equal(module[0].weight, shown[3][0].weight)


def test_patience_starts_anew_with_every_better_epoch() -> None:
    settings = replace(SETTINGS, epochs=6, patience=2)
    score, shown = scripted([0.1, 0.0, 0.2, 0.1, 0.3, 0.2])
    module = make_module(norm=True)
    assert len(train(module, Blobs(), F.cross_entropy, settings, score=score)) == 6
    assert_same_weights(module, shown[4])


def test_without_a_score_the_training_loss_counts() -> None:
    # The loss is told: it falls for two epochs and never again.
    told = iter([3.0] * 12 + [2.0] * 12 + [2.5] * 12 + [2.0] * 12 + [1.0] * 99)

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        value = F.cross_entropy(outputs, labels)
        return value - value.detach() + next(told)

    settings = replace(SETTINGS, epochs=8, patience=2)
    module, states = make_module(), []

    def hook(epoch: int, step: int, loss: float) -> None:
        if step == 12:
            states.append(module[0].weight.detach().clone())

    records = train(module, Blobs(), loss, settings, on_step=hook)
    assert [r.mean_loss for r in records] == [3.0, 2.0, 2.5, 2.0]
    assert torch.equal(module[0].weight, states[1])


def test_a_score_only_watches() -> None:
    score, _ = scripted([0.3, 0.2, 0.1])
    watched, plain = make_module(norm=True), make_module(norm=True)
    train(watched, Blobs(), F.cross_entropy, SETTINGS, score=score)
    train(plain, Blobs(), F.cross_entropy, SETTINGS)
    assert_same_weights(watched, plain)


def test_a_score_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(TrainingDivergedError, match="score became nan after epoch 1"):
        train(make_module(), Blobs(), F.cross_entropy, SETTINGS, score=lambda module: float("nan"))
