"""Training with channels last: the same weights, and networks that do not take it."""

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedl.compress.subject.layout import ChannelsLast
from edgedl.compress.training import TrainingSettings, train


class Pictures:
    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(32, 3, 8, 8, generator=generator)
        self.y = torch.randint(0, 4, (32,), generator=generator)

    def __len__(self) -> int:
        return 4

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for picked in torch.randperm(32, generator=generator).split(8):
            yield self.x[picked], self.y[picked]


class Viewed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 6, 3)
        self.head = nn.Linear(6 * 6 * 6, 4)
        self.layouts: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.layouts.append(is_last(x))
        y = F.relu(self.body(x))
        return self.head(y.view(len(y), -1))


class Flattened(Viewed):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.layouts.append(is_last(x))
        return self.head(F.relu(self.body(x)).flatten(1))


def is_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


def trained(make: Callable[[], nn.Module], **settings: float) -> nn.Module:
    torch.manual_seed(0)
    net = make()
    train(net, Pictures(), F.cross_entropy, TrainingSettings(epochs=2, batch_size=8, **settings))
    return net


def test_channels_are_last_in_training_and_not_after_it() -> None:
    net = trained(Flattened)
    assert net.layouts == [True] * 8
    assert net.body.weight.is_contiguous()


def test_a_network_that_views_rows_is_trained_as_it_was() -> None:
    net = trained(Viewed)
    assert net.layouts == [False] * 8
    assert net.body.weight.is_contiguous()


def test_the_layout_changes_no_more_than_the_order_of_sums() -> None:
    ours, usual = trained(Flattened), trained(Viewed)
    for a, b in zip(ours.parameters(), usual.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_averaged_weights_end_in_the_usual_layout() -> None:
    assert all(p.is_contiguous() for p in trained(Flattened, ema_decay=0.9).parameters())


def test_an_interrupted_run_gives_the_layout_back() -> None:
    net = Flattened()

    def stop(epoch: int, step: int, loss: float) -> None:
        assert not net.body.weight.is_contiguous()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(net, Pictures(), F.cross_entropy, TrainingSettings(1, 8), on_step=stop)
    assert net.body.weight.is_contiguous()


def test_other_errors_of_the_first_batch_are_those_of_the_network() -> None:
    layout = ChannelsLast(Flattened())
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        layout.lay_out((torch.zeros(2, 3, 9, 9),))


def test_a_network_without_pictures_stays_as_it_is() -> None:
    x = torch.zeros(2, 5)
    (found,) = ChannelsLast(nn.Linear(5, 2)).lay_out((x,))
    assert found is x


@pytest.mark.parametrize(("make", "last"), [(Flattened, True), (Viewed, False)])
def test_a_teacher_gets_pictures_so_and_keeps_its_weights(make: type[Viewed], last: bool) -> None:
    teacher = make()
    layout = ChannelsLast(teacher, weights=False)
    x = torch.randn(4, 3, 8, 8)
    for _ in range(2):
        (found,) = layout.lay_out((x,))
        assert is_last(found) == last
    assert teacher.body.weight.is_contiguous()
