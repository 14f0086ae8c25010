"""Importance of channels: against sums by hand, and the loss that really changes."""

import pytest
import torch
import torch.nn.functional as F
from prunable_networks import make
from small_networks import Net
from torch import nn

from edgedl.compress.graph.cuts.channel_groups import ChannelGroup, channel_groups
from edgedl.compress.graph.cuts.tensor_axes import TensorAxes
from edgedl.compress.graph.trace import export_graph
from edgedl.compress.prune.importance import (
    batch_norm_scales,
    channel_scores,
    lamp,
    loss_changes,
    magnitudes,
    taylor,
)
from edgedl.runtime.errors import BadInputError


def inner_group(axes: TensorAxes) -> ChannelGroup:
    (group,) = [g for g in channel_groups(axes) if g.name == "first.weight:0"]
    return group


@pytest.fixture
def axes() -> TensorAxes:
    return TensorAxes(export_graph(*make("residual")))


@pytest.mark.parametrize("power", [1, 2])
def test_magnitudes_are_summed_over_a_channel_in_every_tensor(axes: TensorAxes, power: int) -> None:
    found = channel_scores(axes, inner_group(axes), magnitudes(axes.graph, power))
    module, _ = make("residual")
    sums = [
        (module.first.weight.abs() ** power).sum((1, 2, 3)),
        module.first.bias.abs() ** power,
        module.first_norm.weight.abs() ** power,
        module.first_norm.bias.abs() ** power,
        (module.second.weight.abs() ** power).sum((0, 2, 3)),
    ]
    expected = 2 * torch.stack([s / s.mean() for s in sums]).mean(0)  # two layers
    torch.testing.assert_close(found, expected.detach())


def test_scales_of_batch_norm_alone_count(axes: TensorAxes) -> None:
    found = channel_scores(axes, inner_group(axes), batch_norm_scales(axes.graph))
    scales = make("residual")[0].first_norm.weight.detach().abs()
    torch.testing.assert_close(found, 2 * scales / scales.mean())


def test_a_network_without_batch_norm_has_no_scales() -> None:
    with pytest.raises(BadInputError, match="needs batch norms"):
        batch_norm_scales(export_graph(*make("attention")))


def test_taylor_is_the_gradient_of_a_gate_on_the_channel() -> None:
    """A gate of 1 on every channel: its gradient is the sum of gradient times weight."""
    torch.manual_seed(0)
    layers = {"first": nn.Linear(5, 6, bias=False), "head": nn.Linear(6, 3)}
    net = Net(lambda m, x: m.head(m.first(x)), **layers).eval()
    x, labels = torch.randn(32, 5), torch.randint(0, 3, (32,))
    axes = TensorAxes(export_graph(net, (x,)))
    (group,) = channel_groups(axes)
    batches = [((x[:16],), labels[:16]), ((x[16:],), labels[16:])]
    given = taylor(axes.graph, batches, lambda outputs, y: F.cross_entropy(outputs[0], y))
    found = loss_changes(axes, group, list(given))
    expected = torch.zeros(6)
    for (part,), those in batches:
        gate = torch.ones(6, requires_grad=True)
        F.cross_entropy(net.head(net.first(part) * gate), those).backward()
        assert gate.grad is not None
        expected += gate.grad**2 / len(batches)
    torch.testing.assert_close(found, 2 * expected)  # seen from the layer before and behind


def test_a_channel_without_weights_matters_least(axes: TensorAxes) -> None:
    module, inputs = make("residual")
    with torch.no_grad():
        module.first.weight[2] = 0
        module.second.weight[:, 2] = 0
    axes = TensorAxes(export_graph(module, inputs))
    found = channel_scores(axes, inner_group(axes), magnitudes(axes.graph, 2))
    assert int(found.argmin()) == 2


def test_lamp_is_largest_for_the_last_that_stays() -> None:
    scores = torch.tensor([3.0, 1.0, 2.0])
    torch.testing.assert_close(lamp(scores), 2 * torch.tensor([1.0, 1 / 6, 2 / 5]))
