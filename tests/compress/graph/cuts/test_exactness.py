"""The check of a cut: it finds what the rows of operators say wrongly."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from prunable_networks import NETWORKS, make
from random_networks import draw_network
from small_networks import Net, noise
from torch import Tensor, nn

from edgedl.compress.graph.cuts.channel_groups import ChannelGroup, channel_groups
from edgedl.compress.graph.cuts.exactness import why_not_exact
from edgedl.compress.graph.cuts.tensor_axes import TensorAxes
from edgedl.compress.graph.joined_axes import JoinedAxes
from edgedl.compress.graph.operators import convolution, joining, linear
from edgedl.compress.graph.trace import export_graph
from edgedl.compress.prune.wrong_groups import wrong_groups


def halves(groups: list[ChannelGroup]) -> dict:
    return {g.axis: torch.arange(g.size)[::2] for g in groups}


def axes_of(module: nn.Module, *inputs: Tensor) -> tuple[TensorAxes, list[ChannelGroup]]:
    axes = TensorAxes(export_graph(module.eval(), inputs))
    return axes, channel_groups(axes)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_channels_that_are_followed_are_cut_exactly(name: str) -> None:
    module, inputs = make(name)
    axes, groups = axes_of(module, *inputs)
    assert why_not_exact(axes, halves(groups), inputs) == ""


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(2, 5), st.integers(0, 2**16))
@pytest.mark.slow
def test_any_network_is_cut_exactly(data: st.DataObject, depth: int, seed: int) -> None:
    """Half of the channels of every group go; nothing has to be left whole afterwards."""
    net, x = draw_network(lambda name, ways: data.draw(st.sampled_from(ways), name), depth, seed)
    axes, groups = axes_of(net, x)
    assert wrong_groups(axes, groups, (x,)) == {}


def slid(m: Net, x: Tensor) -> Tensor:
    return m.head(m.over(F.relu(m.first(x))).flatten(1))


def attending(m: Net, x: Tensor) -> Tensor:
    x = F.relu(m.first(x))
    scale = m.over(x.mean(2).unsqueeze(1)).sigmoid().transpose(1, 2)
    return m.head((F.relu(m.second(x * scale))).flatten(1))


SLIDING = {
    # The output gets shorter.
    "steps": (
        slid,
        {"first": nn.Linear(8, 12), "over": nn.Conv1d(5, 3, 3), "head": nn.Linear(30, 4)},
    ),
    # Sizes fit, and the neighbours are others.
    "attention": (
        attending,
        {
            "first": nn.Conv1d(5, 12, 1),
            "over": nn.Conv1d(1, 1, 3, padding=1),
            "second": nn.Conv1d(12, 6, 1),
            "head": nn.Linear(48, 4),
        },
    ),
}


@pytest.mark.parametrize("name", list(SLIDING))
def test_a_row_that_forgets_its_windows_is_found(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, layers = SLIDING[name]
    x = noise(2, 5, 8)
    axes, right = axes_of(Net(forward, **layers), x)
    assert [g.size for g in right] == ([6] if name == "attention" else [3])
    (reason,) = axes.in_the_way()
    assert reason == "'over' slides over it"
    monkeypatch.setattr(
        JoinedAxes, "slide", lambda axes, where, groups: [axes.speak_of(g) for g in groups]
    )
    axes, groups = axes_of(Net(forward, **layers), x)
    wrong = wrong_groups(axes, groups, (x,))
    assert [g.size for g in groups if g.name in wrong] == [12]
    said = {"steps": "returns [2, 3, 4] in place of", "attention": "computes other values"}
    assert f"'over' {said[name]}" in str(wrong)


@pytest.mark.parametrize(
    ("family", "rule", "forward", "reason"),
    [
        (joining, "_slice", lambda m, x: m.wide(x)[:, 2:, :] * 2, "slice"),
        (joining, "_select", lambda m, x: m.wide(x)[:, 3, :, None].mT * 2, "select"),
        (linear, "_join_linear", lambda m, x: m.deep(m.wide(x).mT).mT, "deep"),
    ],
)
def test_what_a_rule_does_not_speak_of_stays(
    family: object,
    rule: str,
    forward: Callable[[Net, Tensor], Tensor],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A row whose rule says nothing pins all that it reads and returns."""
    net = Net(
        lambda m, x: m.head(forward(m, x).flatten(1)),
        wide=nn.Conv1d(5, 12, 1),
        deep=nn.Linear(12, 6),
        head=nn.LazyLinear(3),
    )
    x = noise(2, 5, 8)
    net(x)
    for row in family.ROWS:
        if row.join_axes is getattr(family, rule):
            monkeypatch.setitem(row.__dict__, "join_axes", lambda axes, node: None)
    axes, groups = axes_of(net, x)
    assert 12 not in [g.size for g in groups]
    assert any(reason in said for said in axes.in_the_way())


def test_channels_that_become_tokens_of_attention_stay() -> None:
    """Softmax gives a removed token its share, whose score is zero."""
    net = Net(
        lambda m, x: m.head(m.read(F.scaled_dot_product_attention(*[m.wide(x)] * 3)).flatten(1)),
        wide=nn.Conv1d(5, 12, 1),
        read=nn.Conv1d(12, 6, 1),
        head=nn.Linear(48, 3),
    )
    x = noise(2, 5, 8)
    axes, groups = axes_of(net, x)
    assert [g.size for g in groups] == [6]
    assert why_not_exact(axes, halves(groups), (x,)) == ""


@pytest.mark.parametrize(
    "norm",
    [
        nn.InstanceNorm1d(5, affine=True),
        nn.GroupNorm(5, 5),
        nn.BatchNorm1d(5, track_running_stats=False),
    ],
)
def test_features_whose_statistics_are_taken_stay(norm: nn.Module) -> None:
    """Features of steps, normalized over each step as if they were places."""
    net = Net(
        lambda m, x: m.head(m.norm(m.wide(x)).relu()),
        wide=nn.Linear(8, 12),
        norm=norm,
        head=nn.Linear(12, 4),
    )
    assert axes_of(net, noise(2, 5, 8))[1] == []


def test_a_norm_counts_the_channels_that_are_there() -> None:
    """The smaller layer norm is that of the channels that stay, not of zeros."""
    net = Net(
        lambda m, x: m.head(m.norm(m.wide(x)).relu()),
        wide=nn.Linear(8, 12),
        norm=nn.LayerNorm(12),
        head=nn.Linear(12, 4),
    )
    x = noise(2, 5, 8)
    axes, groups = axes_of(net, x)
    assert [g.size for g in groups] == [12]
    assert why_not_exact(axes, halves(groups), (x,)) == ""


def test_only_the_wrong_group_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grouped convolutions whose rule takes any channel for any other."""

    def join_axes(axes: JoinedAxes, node, transposed: bool = False) -> None:
        view = convolution.Convolution.of(node)
        x, weight, result = axes.of(view.input), axes.of(view.weight), axes.of(node)
        axes.join(node, [weight[0]], result[1:2])
        for own in (x, weight, result, axes.of(view.bias)):
            axes.speak_of(own)

    net = Net(
        lambda m, x: m.head(m.last(F.relu(m.grouped(F.relu(m.first(x))))).relu().mean(2)),
        first=nn.Conv1d(5, 12, 1),
        grouped=nn.Conv1d(12, 12, 1, groups=4),
        last=nn.Conv1d(12, 6, 1),
        head=nn.Linear(6, 3),
    )
    x = noise(2, 5, 8)
    right = convolution.CONV1D.join_axes
    assert right is not None
    monkeypatch.setitem(
        convolution.CONV1D.__dict__,
        "join_axes",
        lambda axes, node: (
            join_axes(axes, node)
            if convolution.Convolution.of(node).groups > 1
            else right(axes, node)
        ),
    )
    axes, groups = axes_of(net, x)
    wrong = wrong_groups(axes, groups, (x,))
    left = [g for g in groups if g.name not in wrong]
    assert [g.size for g in left] == [6]
    assert why_not_exact(axes, halves(left), (x,)) == ""
