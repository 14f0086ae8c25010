"""Equalization: the same function, equal channels, and fewer errors where channels differed."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_networks import Net, noise
from torch import nn
from uneven_networks import SHAPE, chain, decibels, same_function, state_of

from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.operators.table import is_weighted
from edgedl.compress.quantize.corrections.channel_paths import (
    NotEquivalentError,
    check_same,
    find_paths,
)
from edgedl.compress.quantize.corrections.equalize import Equalize
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.state import ModelState
from edgedl.runtime.errors import BadInputError


def layers(state: ModelState) -> list[np.ndarray]:
    """Return the weights of a chain in the order they run."""
    weighted = [n for n in state.graph.graph.nodes if is_weighted(n)]
    return [state.graph.get_buffer(str(n.args[1].target)).numpy() for n in weighted]


def test_it_computes_the_same_and_leaves_the_given_state() -> None:
    net = chain()
    state = state_of(net)
    before = {n: t.clone() for n, t in state.graph.named_parameters()}
    found = Equalize().apply(state)
    assert same_function(net, found.graph) < 1e-5
    assert same_function(net, state.graph) < 1e-6
    for name, tensor in state.graph.named_parameters():
        assert torch.equal(tensor, before[name])
    assert [h.stage for h in found.history] == ["equalize"]
    assert found.history[0].settings["absorb_bias"] is True


def test_every_channel_has_the_same_largest_weight_on_both_sides() -> None:
    first, depthwise, second, fc1, fc2 = layers(Equalize().apply(state_of(chain())))
    pairs = [
        (first, depthwise),
        (depthwise, second.transpose(1, 0, 2, 3)),
        (second, fc1.reshape(10, 12, 16).transpose(1, 0, 2)),
        (fc1, fc2.T),
    ]
    for left, right in pairs:
        for i in range(len(left)):
            assert np.abs(left[i]).max() == pytest.approx(np.abs(right[i]).max(), rel=2e-3)


def test_grouped_convolutions_get_the_factor_of_their_own_inputs() -> None:
    net = Net(
        lambda net, x: net.c(F.leaky_relu(net.b(F.avg_pool2d(F.relu(net.a(x)), 2, 2, 1)), 0.2)),
        a=nn.Conv2d(3, 8, 3),
        b=nn.Conv2d(8, 6, 2, groups=2),
        c=nn.Conv2d(6, 4, 1, bias=False),
    )
    net.a.weight.data *= 2.0 ** torch.arange(-4, 4).view(-1, 1, 1, 1)
    state = Equalize().apply(state_of(net.eval()))
    assert same_function(net, state.graph) < 1e-5
    a, b, _ = layers(state)
    for i in range(8):
        reading = b[3 * (i // 4) : 3 * (i // 4) + 3, i % 4]
        assert np.abs(a[i]).max() == pytest.approx(np.abs(reading).max(), rel=2e-3)


def test_decibels_come_back_where_channels_differed() -> None:
    net = chain()
    plain = QuantizeStatic().apply(state_of(net))
    equalized = QuantizeStatic().apply(Equalize().apply(state_of(net)))
    assert decibels(equalized, net) > decibels(plain, net) + 6


def test_sequences_of_linear_layers_keep_their_last_axis() -> None:
    net = Net(lambda net, x: net.b(F.relu(net.a(x))), a=nn.Linear(6, 5), b=nn.Linear(5, 3)).eval()
    state = state_of(net, (7, 6))
    assert len(find_paths(state.graph.graph)) == 1
    assert same_function(net, Equalize().apply(state).graph, 7, 6) < 1e-5


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: net.b(F.relu6(net.a(x))),
        lambda net, x: net.b(torch.sigmoid(net.a(x))),
        lambda net, x: net.b(F.relu(net.a(x)) + x),
        lambda net, x: (lambda h: net.b(F.relu(h)) + h)(net.a(x)),
        lambda net, x: net.b(net.a(x).transpose(2, 3)),
        lambda net, x: (lambda h: (net.b(h), h))(F.relu(net.a(x))),
        lambda net, x: net.b(net.a(x).roll(1, 1)),
    ],
)
def test_what_is_not_homogeneous_or_read_elsewhere_stops_it(forward) -> None:
    net = Net(forward, a=nn.Conv2d(3, 3, 3, padding=1), b=nn.Conv2d(3, 3, 1)).eval()
    net.a.weight.data[0] *= 50
    state = state_of(net)
    assert find_paths(state.graph.graph) == []
    assert same_function(net, Equalize().apply(state).graph) < 1e-6


def test_relu6_is_replaced_only_if_asked_for() -> None:
    net = Net(
        lambda net, x: net.c(torch.clamp(net.b(F.relu6(net.a(x))), -1, 1)),
        a=nn.Conv2d(3, 6, 3),
        b=nn.Conv2d(6, 4, 3),
        c=nn.Conv2d(4, 2, 1),
    ).eval()
    net.a.weight.data *= 20
    state = state_of(net)
    assert same_function(net, Equalize().apply(state).graph) < 1e-6
    found = Equalize(replace_relu6=True).apply(state)
    targets = [n.target for n in found.graph.graph.nodes]
    assert aten.relu6.default not in targets
    assert aten.clamp.default in targets
    changed = Net(lambda net, x: net.c(torch.clamp(net.b(F.relu(net.a(x))), -1, 1)))
    changed.a, changed.b, changed.c = net.a, net.b, net.c
    assert same_function(changed, found.graph) < 1e-5
    assert same_function(net, found.graph) > 1e-3


def high_bias(padding: int = 0) -> nn.Module:
    """Build a layer two of whose channels are never below 0, the first by far."""
    net = Net(
        lambda net, x: net.b(F.relu(net.a(x))),
        a=nn.Conv2d(3, 4, 3),
        b=nn.Conv2d(4, 2, 3, padding=padding),
    )
    net.a.weight.data[:2] *= 0.1
    net.a.bias.data[:2] = torch.tensor([6.0, 3.0])
    return net.eval()


def test_what_a_channel_never_falls_below_is_absorbed() -> None:
    net = high_bias()
    kept, moved = (Equalize(absorb_bias=b).apply(state_of(net)) for b in (False, True))
    x = noise(48, *SHAPE, seed=10)
    with torch.no_grad():
        torch.testing.assert_close(moved.graph(x), net(x), atol=1e-5, rtol=1e-5)
        old, new = (
            F.conv2d(x, *(s.graph.get_buffer(f"conv2d_own_{k}") for k in ("weight", "bias")))
            for s in (kept, moved)
        )
    # New data may fall a little below what calibration saw.
    assert same_function(net, moved.graph) < 1e-2
    least = old.amin((0, 2, 3))
    assert (least[:2] > 0).all()
    torch.testing.assert_close(old - new, least.clamp(min=0).view(1, -1, 1, 1).expand_as(old))
    gain = decibels(QuantizeStatic().apply(moved), net) - decibels(
        QuantizeStatic().apply(kept), net
    )
    assert gain > 3


def test_nothing_is_absorbed_by_a_layer_that_pads() -> None:
    net = high_bias(padding=1)
    state = state_of(net)
    found = Equalize().apply(state).graph
    expected = Equalize(absorb_bias=False).apply(state).graph
    assert torch.equal(found.conv2d_own_bias, expected.conv2d_own_bias)
    assert same_function(net, found) < 1e-6


def test_channels_without_weights_stay_as_they_are() -> None:
    net = Net(lambda net, x: net.b(F.relu(net.a(x))), a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 2, 1))
    net.a.weight.data[1] = 0
    net.b.weight.data[:, 2] = 0
    found = Equalize(absorb_bias=False).apply(state_of(net.eval()))
    assert same_function(net, found.graph) < 1e-5
    a, _ = layers(found)
    np.testing.assert_array_equal(a[1:3], net.a.weight.detach().numpy()[1:3])


def test_it_comes_before_quantization() -> None:
    state = QuantizeStatic(samples=4).apply(state_of(chain()))
    with pytest.raises(BadInputError, match=r"works on the float graph.*before quantize_static"):
        Equalize().apply(state)


def test_another_function_is_refused() -> None:
    a, b = (state_of(high_bias()).graph for _ in range(2))
    with torch.no_grad():
        b.get_parameter("a.bias").add_(0.01)
    with pytest.raises(NotEquivalentError, match="equalize changed output 0"):
        check_same(a, b, (noise(4, *SHAPE),), "equalize")
