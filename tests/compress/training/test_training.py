"""The training loop against a loop by hand, and runs that stop and go on."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedl.compress.training import (
    EpochRecord,
    TrainingDivergedError,
    TrainingSettings,
    train,
)
from edgedl.runtime.errors import BadInputError

SETTINGS = TrainingSettings(epochs=4, batch_size=16, max_learning_rate=0.1, seed=3)


class Blobs:
    """Three clusters in the plane, shuffled by the generator; every value is used once."""

    def __init__(self, batch_size: int = 16) -> None:
        generator = torch.Generator().manual_seed(1)
        self.labels = torch.arange(160) % 3
        centers = torch.tensor([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]])
        self.inputs = centers[self.labels] + 0.5 * torch.randn(160, 2, generator=generator)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(self.labels) // self.batch_size

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for part in torch.randperm(160, generator=generator).split(self.batch_size):
            yield self.inputs[part], self.labels[part]


def make_module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def fit(module: nn.Module, settings: TrainingSettings = SETTINGS, **rest: Any) -> list[EpochRecord]:
    return train(module, Blobs(), F.cross_entropy, settings, **rest)


def assert_same_weights(a: nn.Module, b: nn.Module) -> None:
    first, second = a.state_dict(), b.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


class Stop(Exception):  # noqa: N818
    """Stands for a killed process."""


def stop_in_epoch(epoch: int, step: int = 4) -> Any:
    def hook(at_epoch: int, at_step: int, loss: float) -> None:
        if (at_epoch, at_step) == (epoch, step):
            raise Stop

    return hook


def test_loss_falls_and_the_module_ends_in_evaluation_mode() -> None:
    module = make_module()
    records = fit(module)
    assert [r.epoch for r in records] == [1, 2, 3, 4]
    assert records[-1].mean_loss < 0.3 * records[0].mean_loss
    assert not module.training
    blobs = Blobs()
    assert (module(blobs.inputs).argmax(1) == blobs.labels).float().mean() > 0.95


def test_a_module_in_evaluation_mode_is_trained_all_the_same() -> None:
    module, expected = make_module().eval(), make_module()
    fit(module)
    fit(expected)
    assert_same_weights(module, expected)


def test_weights_are_those_of_a_loop_by_hand() -> None:
    module, expected = make_module(), make_module()
    records = fit(module)
    optimizer = torch.optim.SGD(expected.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=40)
    generator = torch.Generator().manual_seed(3)
    rates, losses = [], []
    for _ in range(4):
        for inputs, labels in Blobs().epoch(generator):
            loss = F.cross_entropy(expected(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.append(cycle.get_last_lr()[0])
            losses.append(loss.item())
            cycle.step()
    assert_same_weights(module, expected)
    assert [r.learning_rate for r in records] == rates[9::10]
    assert records[1].mean_loss == pytest.approx(sum(losses[10:20]) / 10)
    assert max(rates) == pytest.approx(0.1)
    assert rates.index(max(rates)) == 11


def test_other_peaks_and_the_cosine_are_those_of_a_loop_by_hand() -> None:
    module, expected = make_module(), make_module()
    for net in (module, expected):
        net[0].bias.requires_grad_(False)
    settings = TrainingSettings(
        epochs=2,
        max_learning_rate=0.01,
        weight_decay=0.0,
        seed=3,
        optimizer="adamw",
        schedule="cosine",
        other_peaks={"3": 0.05},
    )
    fit(module, settings)
    first = [expected[0].weight, expected[1].weight, expected[1].bias]
    optimizers = [torch.optim.Adam(first, 0.01), torch.optim.Adam(expected[3].parameters(), 0.05)]
    generator = torch.Generator().manual_seed(3)
    step = 0
    for _ in range(2):
        for inputs, labels in Blobs().epoch(generator):
            loss = F.cross_entropy(expected(inputs), labels)
            expected.zero_grad()
            loss.backward()
            for optimizer, peak in zip(optimizers, (0.01, 0.05), strict=True):
                optimizer.param_groups[0]["lr"] = peak * (1 + math.cos(math.pi * step / 20)) / 2
                optimizer.step()
            step += 1
    for a, b in zip(module.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_one_cycle_peaks_where_each_group_says() -> None:
    module = make_module()
    settings = replace(SETTINGS, other_peaks={"3": 1e-12})
    before = module[3].weight.clone()
    fit(module, settings)
    torch.testing.assert_close(module[3].weight, before, rtol=0, atol=1e-6)
    assert not torch.equal(module[0].weight, make_module()[0].weight)


def test_another_peak_of_a_submodule_that_is_not_there_is_refused() -> None:
    with pytest.raises(BadInputError, match=r"'ranges'.*no such submodule"):
        fit(make_module(), replace(SETTINGS, other_peaks={"ranges": 0.1}))


def test_a_network_of_two_inputs_and_two_outputs_is_trained() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return self.scale * x, y

    class Batches:
        def __len__(self) -> int:
            return 50

        def epoch(self, generator: torch.Generator) -> Iterator[Any]:
            for _ in range(50):
                x = torch.randn(8, 1, generator=generator)
                yield (x, -x), 3 * x

    def loss(outputs: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        return F.mse_loss(outputs[0] - outputs[1], target)

    module = Two()
    train(module, Batches(), loss, TrainingSettings(epochs=2, max_learning_rate=0.05))
    assert module.scale.item() == pytest.approx(2.0, abs=0.05)


def test_the_hook_hears_every_step() -> None:
    heard = []
    fit(make_module(), on_step=lambda *arguments: heard.append(arguments))
    assert [h[:2] for h in heard] == [(e, s) for e in range(1, 5) for s in range(1, 11)]
    assert all(math.isfinite(h[2]) for h in heard)


def without_time(records: list[EpochRecord]) -> list[EpochRecord]:
    return [replace(record, seconds=0.0) for record in records]


@pytest.mark.parametrize("stops", [(2,), (3,), (1, 2, 4)])
def test_a_run_that_was_cut_off_ends_with_the_same_bits(
    stops: tuple[int, ...], tmp_path: Path
) -> None:
    whole = make_module()
    records = fit(whole)
    checkpoint = tmp_path / "checkpoint.pt"
    for epoch in stops:
        with pytest.raises(Stop):
            fit(make_module(), checkpoint=checkpoint, on_step=stop_in_epoch(epoch))
        assert checkpoint.is_file() == (epoch > 1)
    resumed = make_module()
    assert without_time(fit(resumed, checkpoint=checkpoint)) == without_time(records)
    assert_same_weights(resumed, whole)


def test_resuming_starts_from_the_last_whole_epoch(tmp_path: Path) -> None:
    checkpoint, heard = tmp_path / "checkpoint.pt", []
    with pytest.raises(Stop):
        fit(make_module(), checkpoint=checkpoint, on_step=stop_in_epoch(3))
    fit(make_module(), checkpoint=checkpoint, on_step=lambda *a: heard.append(a[:2]))
    assert heard[0] == (3, 1)
    assert len(heard) == 20


def test_a_finished_run_only_loads_its_weights(tmp_path: Path) -> None:
    checkpoint, done, again = tmp_path / "checkpoint.pt", make_module(), make_module()
    records = fit(done, checkpoint=checkpoint)
    assert fit(again, checkpoint=checkpoint, on_step=stop_in_epoch(1, 1)) == records
    assert_same_weights(done, again)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"not a checkpoint" * 9]
)
def test_a_damaged_checkpoint_is_refused_and_kept(damage: Any, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    fit(make_module(), checkpoint=checkpoint)
    damaged = damage(checkpoint.read_bytes())
    checkpoint.write_bytes(damaged)
    with pytest.raises(BadInputError, match=r"not a whole checkpoint .* delete it to start"):
        fit(make_module(), checkpoint=checkpoint)
    assert checkpoint.read_bytes() == damaged


@pytest.mark.parametrize("change", [{"epochs": 5}, {"seed": 4}, {"max_learning_rate": 0.2}])
def test_a_checkpoint_of_other_settings_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    fit(make_module(), checkpoint=checkpoint)
    other = TrainingSettings(
        **{"epochs": 4, "batch_size": 16, "max_learning_rate": 0.1, "seed": 3, **change}
    )
    with pytest.raises(BadInputError, match="other settings"):
        fit(make_module(), other, checkpoint=checkpoint)


def test_the_seed_fixes_the_run() -> None:
    first, second, other = make_module(), make_module(), make_module()
    fit(first)
    fit(second)
    fit(other, TrainingSettings(epochs=4, batch_size=16, max_learning_rate=0.1, seed=4))
    assert_same_weights(first, second)
    assert not torch.equal(first[0].weight, other[0].weight)


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_checkpoint(
    tmp_path: Path,
) -> None:
    checkpoint, calls = tmp_path / "checkpoint.pt", []

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        calls.append(1)
        return F.cross_entropy(outputs, labels) * (float("nan") if len(calls) == 13 else 1.0)

    module = make_module()
    with pytest.raises(TrainingDivergedError, match=r"nan in epoch 2, step 3.*lower") as caught:
        train(module, Blobs(), loss, SETTINGS, checkpoint)
    assert caught.value.exit_code == 3
    assert all(p.isfinite().all() for p in module.parameters())
    assert checkpoint.is_file()


def test_a_learning_rate_far_too_high_diverges() -> None:
    settings = TrainingSettings(epochs=4, batch_size=16, max_learning_rate=1e30)
    with pytest.raises(TrainingDivergedError, match=r"now 1e\+30"):
        fit(make_module(), settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 0},
        {"epochs": 1, "batch_size": 0},
        {"epochs": 1, "max_learning_rate": 0.0},
        {"epochs": 1, "max_learning_rate": float("nan")},
        {"epochs": 1, "other_peaks": {"0": -1.0}},
        {"epochs": 1, "momentum": 1.0},
        {"epochs": 1, "label_smoothing": 2.0},
        {"epochs": 1, "weight_decay": -1.0},
        {"epochs": 1, "max_gradient_norm": -1.0},
    ],
)
def test_settings_that_cannot_train_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BadInputError, match=r"must be|goes from"):
        TrainingSettings(**settings)


class Words:
    """Ids of words, and which half of the vocabulary each is from."""

    def __len__(self) -> int:
        return 4

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(4):
            ids = torch.randint(10, (16,), generator=generator)
            yield ids, ids // 5


def test_ids_stay_integers() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 2))
    epochs = train(module, Words(), F.cross_entropy, SETTINGS)
    assert epochs[-1].mean_loss < epochs[0].mean_loss
