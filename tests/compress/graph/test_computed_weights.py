"""Weights that are computed of parameters: their channels are cut as those of any other."""

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from small_networks import Net, noise
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import register_parametrization

from edgedl.compress.graph.cuts.channel_groups import channel_groups
from edgedl.compress.graph.cuts.exactness import why_not_exact
from edgedl.compress.graph.cuts.tensor_axes import TensorAxes
from edgedl.compress.graph.trace import export_graph

X = noise(2, 3, 10)


def by_hooks(layer: nn.Module) -> nn.Module:
    """The older weight norm, whose weight is an attribute."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.nn.utils.weight_norm(layer)


class Centred(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return w - w.mean((1, 2), keepdim=True)


def own(layer: nn.Module) -> nn.Module:
    return register_parametrization(layer, "weight", Centred())


class Standardized(nn.Conv1d):
    """Whose forward computes the weight."""

    def forward(self, x: Tensor) -> Tensor:
        deviation = self.weight.std((1, 2), keepdim=True) + 1e-5
        return F.conv1d(x, self.weight / deviation, self.bias)


def standardized(layer: nn.Module) -> nn.Module:
    assert isinstance(layer, nn.Conv1d)
    return Standardized(layer.in_channels, layer.out_channels, layer.kernel_size[0])


WAYS: list[Callable[[nn.Module], nn.Module]] = [
    parametrizations.weight_norm,
    parametrizations.spectral_norm,
    parametrizations.orthogonal,
    by_hooks,
    own,
    standardized,
]


@pytest.mark.parametrize("way", WAYS)
def test_computed_weights_are_cut(way: Callable[[nn.Module], nn.Module]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        way(nn.Conv1d(3, 12, 3)),
        nn.ReLU(),
        way(nn.Conv1d(12, 8, 3)),
        nn.Flatten(),
        nn.Linear(48, 2),
    ).eval()
    graph = export_graph(net, (X,))
    torch.testing.assert_close(graph(X), net(X))
    axes = TensorAxes(graph)
    groups = channel_groups(axes)
    assert [g.size for g in groups] == [12, 8]
    assert axes.in_the_way() == ()
    kept = {g.axis: torch.arange(g.size)[1::2] for g in groups}
    assert why_not_exact(axes, kept, (X,)) == ""
    trained = {name for name, p in graph.named_parameters() if p.requires_grad}
    assert len(trained) == 6
    assert not [name for name in trained if "parametrizations" in name]


def test_the_weight_is_called_what_it_is() -> None:
    net = Net(lambda m, x: m.layer(x), layer=parametrizations.weight_norm(nn.Conv1d(3, 4, 3)))
    graph = export_graph(net.eval(), (X,))
    assert [name for name, _ in graph.named_parameters()] == ["layer.bias", "layer.weight"]


def test_what_channels_can_be_followed_through_stays() -> None:
    """A tied weight is one parameter, turned or not, and looked up positions keep their table."""

    def forward(m: Net, x: Tensor) -> Tensor:
        y = m.first(x.mT) + m.places(torch.arange(10))
        return y.relu() @ m.first.weight

    net = Net(forward, first=nn.Linear(3, 6), places=nn.Embedding(12, 6))
    graph = export_graph(net.eval(), (X,))
    assert {n for n, _ in graph.named_parameters()} == {
        "first.weight",
        "first.bias",
        "places.weight",
    }


def test_what_is_changed_in_place_is_left_alone() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        w = m.layer.weight / m.layer.weight.norm()
        w[:, 0] *= 2
        return F.conv1d(x, w)

    net = Net(forward, layer=nn.Conv1d(3, 4, 3)).eval()
    torch.testing.assert_close(export_graph(net, (X,))(X), net(X))


def test_a_block_of_its_own_has_no_tensor() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = m.first(x)
        with torch.no_grad():
            y = y.sin()
        return m.head(F.relu(m.second(y)).mean(2))

    net = Net(forward, first=nn.Conv1d(3, 8, 1), second=nn.Conv1d(8, 6, 1), head=nn.Linear(6, 2))
    axes = TensorAxes(export_graph(net.eval(), (X,)))
    assert 6 in [g.size for g in channel_groups(axes)]
    kept = {g.axis: torch.arange(g.size)[1::2] for g in channel_groups(axes)}
    assert why_not_exact(axes, kept, (X,)) == ""
