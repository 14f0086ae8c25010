"""Accumulated gradients and averaged weights, against loops by hand."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from training_blobs import SETTINGS, Blobs, make_module

from edgedl.compress.training import TrainingSettings, train
from edgedl.compress.training.descent import make_optimizer, make_schedule
from edgedl.runtime.errors import BadInputError


@pytest.mark.parametrize("clip", [None, 0.3])
def test_accumulated_batches_equal_one_large_batch(clip: float | None) -> None:
    settings = replace(SETTINGS, max_gradient_norm=clip)
    small, large = make_module(), make_module()
    first = train(small, Blobs(8), F.cross_entropy, replace(settings, accumulate=4))
    second = train(large, Blobs(32), F.cross_entropy, settings)
    for a, b in zip(small.parameters(), large.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert first[-1].learning_rate == second[-1].learning_rate
    assert first[-1].mean_loss == pytest.approx(second[-1].mean_loss, rel=1e-5)
    unlike = make_module()
    train(unlike, Blobs(8), F.cross_entropy, settings)
    assert not torch.allclose(unlike[0].weight, large[0].weight, atol=1e-3)


def test_the_last_step_of_an_epoch_averages_what_is_left() -> None:
    settings = replace(SETTINGS, epochs=2, accumulate=5)
    module, expected = make_module(), make_module()
    train(module, Blobs(8), F.cross_entropy, settings)
    optimizer = torch.optim.SGD(expected.parameters(), 0.05, 0.9, weight_decay=5e-4, nesterov=True)
    # 12 batches an epoch: steps of 5, 5 and 2.
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=6)
    generator = torch.Generator().manual_seed(2)
    for _ in range(2):
        drawn = list(Blobs(8).epoch(generator))
        for group in (drawn[:5], drawn[5:10], drawn[10:]):
            inputs, labels = (torch.cat(parts) for parts in zip(*group, strict=True))
            optimizer.zero_grad()
            F.cross_entropy(expected(inputs), labels).backward()
            optimizer.step()
            cycle.step()
    for a, b in zip(module.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_the_hook_hears_every_batch_and_weights_move_only_at_steps() -> None:
    module = make_module()
    seen: list[Tensor] = []
    settings = replace(SETTINGS, epochs=1, accumulate=4)

    def hook(epoch: int, step: int, loss: float) -> None:
        seen.append(module[0].weight.detach().clone())

    train(module, Blobs(8), F.cross_entropy, settings, on_step=hook)
    moved = [not torch.equal(a, b) for a, b in pairwise(seen)]
    assert moved == [False, False, True, False, False, False, True, False, False, False, True]


def test_the_end_is_the_average_of_what_every_step_left() -> None:
    module, decay = make_module(norm=True), 0.8
    average = {k: v.double() for k, v in make_module(norm=True).state_dict().items()}

    def hook(epoch: int, step: int, loss: float) -> None:
        for name, value in module.state_dict().items():
            average[name] = decay * average[name] + (1 - decay) * value.double()

    train(module, Blobs(), F.cross_entropy, replace(SETTINGS, ema_decay=decay), on_step=hook)
    plain = make_module(norm=True)
    train(plain, Blobs(), F.cross_entropy, SETTINGS)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), average[name], rtol=1e-4, atol=1e-6)
            assert not torch.equal(value, plain.state_dict()[name])
    # Averaging only watches: a count of batches is that of the plain run.
    assert torch.equal(module[1].num_batches_tracked, plain[1].num_batches_tracked)


def test_averaged_zeros_stay_zero() -> None:
    module = make_module()
    with torch.no_grad():
        module[0].weight[::2] = 0

    def hold(epoch: int, step: int, loss: float) -> None:
        with torch.no_grad():
            module[0].weight[::2] = 0

    train(module, Blobs(), F.cross_entropy, replace(SETTINGS, ema_decay=0.9), on_step=hold)
    assert module[0].weight[::2].count_nonzero() == 0
    assert module[0].weight[1::2].count_nonzero() == 8


def test_a_mask_of_infinities_is_not_averaged() -> None:
    module = make_module()
    mask = torch.full((4, 4), -torch.inf).triu(1)
    module.register_buffer("mask", mask.clone())
    train(module, Blobs(8), F.cross_entropy, replace(SETTINGS, ema_decay=0.5))
    assert torch.equal(module.mask, mask)


@pytest.mark.parametrize(("momentum", "swing"), [(0.9, 0.05), (0.5, 0.05), (0.99, 0.005), (0.0, 0)])
def test_one_cycle_swings_the_momentum_around_the_setting(momentum: float, swing: float) -> None:
    settings = replace(SETTINGS, momentum=momentum)
    optimizer = make_optimizer(make_module(), settings)
    schedule = make_schedule(optimizer, settings, 100)
    seen = []
    for _ in range(100):
        seen.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        schedule.step()
    assert (min(seen), max(seen)) == pytest.approx((momentum - swing, momentum + swing), abs=1e-3)


def test_a_single_step_has_the_peak() -> None:
    settings = replace(SETTINGS, epochs=1)
    schedule = make_schedule(make_optimizer(make_module(), settings), settings, 1)
    assert schedule.get_last_lr() == [settings.max_learning_rate]


def test_a_network_without_gradients_is_refused() -> None:
    with pytest.raises(BadInputError, match="no parameter requires a gradient"):
        train(make_module().requires_grad_(False), Blobs(8), F.cross_entropy, SETTINGS)


@pytest.mark.parametrize(
    "settings", [{"accumulate": 0}, {"patience": 0}, {"ema_decay": 1.0}, {"ema_decay": 0.0}]
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(BadInputError, match="must be"):
        TrainingSettings(epochs=1, **settings)
