"""Score, parameter and arithmetic counts against counts by hand."""

import numpy as np
import pytest
import torch
from small_networks import noise
from tiny import make_net, make_task
from torch import nn

from edgedl.compress.graph.run import count_macs, count_parameters
from edgedl.compress.subject.outputs import as_tuple
from edgedl.compress.subject.score import score_module
from edgedl.runtime.task import batch_size


def test_every_test_sample_is_scored_once_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    task, net = make_task(), make_net()
    scores = score_module(net, task)
    (batch,) = task.batches("test", 10_000)
    with torch.no_grad():
        logits = net(torch.tensor(batch.inputs[0])).numpy()
    assert scores.dtype == np.float64
    assert np.array_equal(scores, logits.argmax(1) == batch.labels)
    assert 0 < scores.mean() < 1
    monkeypatch.setattr(batch_size, "SIZES", (7,))
    assert np.array_equal(score_module(net, task), scores)


def test_the_split_is_chosen_by_name() -> None:
    assert len(score_module(make_net(), make_task(), "calibration")) == 64


def test_scoring_records_no_gradients() -> None:
    net = make_net()
    score_module(net, make_task(), "calibration")
    assert all(p.grad is None for p in net.parameters())


def test_parameters_are_counted() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 5), nn.BatchNorm2d(4), nn.Linear(7, 2, bias=False))
    assert count_parameters(net) == (4 * 3 * 25 + 4) + (4 + 4) + 14


@pytest.mark.parametrize(
    ("module", "shape", "macs"),
    [
        (nn.Linear(7, 5), (7,), 7 * 5),
        (nn.Conv2d(3, 4, 3), (3, 8, 8), 4 * 3 * 9 * 36),
        (nn.Conv2d(3, 4, 3, stride=2, padding=1), (3, 8, 8), 4 * 3 * 9 * 16),
        (nn.Conv2d(6, 6, 3, groups=6), (6, 5, 5), 6 * 9 * 9),
        (nn.Conv1d(2, 5, 3), (2, 10), 5 * 2 * 3 * 8),
        (nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), (4,), 24 + 12),
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_macs_are_counted_for_one_pass(
    module: nn.Module, shape: tuple[int, ...], macs: int, batch: int
) -> None:
    assert count_macs(module, (noise(batch, *shape),)) == batch * macs


def test_one_output_and_many_are_a_tuple() -> None:
    x, y = noise(2), noise(3)
    assert as_tuple(x) == (x,)
    assert as_tuple([x, y]) == (x, y)
    assert as_tuple((x, y)) == (x, y)
