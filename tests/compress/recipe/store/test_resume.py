"""Resuming a training run: to the bit with randomness in the network, or a clear refusal."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedl.compress.training import TrainingSettings, train
from edgedl.runtime.errors import BadInputError


class Batches:
    def __init__(self) -> None:
        self.x = torch.randn(32, 2, generator=torch.Generator().manual_seed(1))
        self.y = (self.x[:, 0] > 0).long()

    def __len__(self) -> int:
        return 4

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for picked in torch.randperm(32, generator=generator).split(8):
            yield self.x[picked], self.y[picked]


class StoppedError(Exception):
    pass


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 16), nn.Dropout(0.5), nn.Linear(16, 2))
    torch.manual_seed(7)
    return net


def test_dropout_goes_on_where_it_was(tmp_path: Path) -> None:
    settings = TrainingSettings(epochs=4, batch_size=8)
    whole = make_net()
    train(whole, Batches(), F.cross_entropy, settings)

    def stop(epoch: int, step: int, loss: float) -> None:
        if epoch == 3:
            raise StoppedError

    cut = make_net()
    with pytest.raises(StoppedError):
        train(cut, Batches(), F.cross_entropy, settings, tmp_path / "c.pt", stop)
    resumed = make_net()
    train(resumed, Batches(), F.cross_entropy, settings, tmp_path / "c.pt")
    assert torch.equal(whole[0].weight, resumed[0].weight)


@pytest.mark.parametrize("content", [{}, {"weights": torch.zeros(2)}, torch.zeros(3)])
def test_foreign_checkpoint(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "c.pt")
    settings = TrainingSettings(epochs=1)
    with pytest.raises(BadInputError, match="not a whole checkpoint"):
        train(make_net(), Batches(), F.cross_entropy, settings, tmp_path / "c.pt")


def test_checkpoint_of_another_network(tmp_path: Path) -> None:
    settings = TrainingSettings(epochs=1)
    train(make_net(), Batches(), F.cross_entropy, settings, tmp_path / "c.pt")
    with pytest.raises(BadInputError, match="not a whole checkpoint of this network"):
        train(nn.Linear(2, 2), Batches(), F.cross_entropy, settings, tmp_path / "c.pt")


def test_a_checkpoint_from_before_a_setting_was_known_is_of_its_default(tmp_path: Path) -> None:
    path, whole, resumed = tmp_path / "c.pt", make_net(), make_net()
    settings = TrainingSettings(epochs=1)
    train(whole, Batches(), F.cross_entropy, settings, path)
    state = torch.load(path, weights_only=True)
    del state["settings"]["schedule"], state["settings"]["other_peaks"]
    torch.save(state, path)

    def refuse(epoch: int, step: int, loss: float) -> None:
        raise StoppedError

    train(resumed, Batches(), F.cross_entropy, settings, path, refuse)
    assert torch.equal(whole[0].weight, resumed[0].weight)
    with pytest.raises(BadInputError, match="other settings"):
        train(make_net(), Batches(), F.cross_entropy, replace(settings, schedule="cosine"), path)
