"""SmoothQuant: the same function, the paper's factors, and fewer errors behind outliers."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from listening import notes_to
from small_networks import Net, noise
from torch import Tensor, nn
from uneven_networks import chain, decibels, same_function, state_of

from edgedl.compress.graph.edit import get_tensor
from edgedl.compress.graph.operators.table import is_weighted
from edgedl.compress.graph.trace import trace
from edgedl.compress.quantize.corrections.channel_readers import find_readers
from edgedl.compress.quantize.corrections.smooth import Smooth
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.state import ModelState
from edgedl.runtime.errors import BadInputError

TOKENS = (7, 12)


def attention(affine: bool = True) -> nn.Module:
    """Build a block whose first layer norm has two channels far larger than the others."""

    def forward(net: Any, x: Tensor) -> Tensor:
        h = net.norm(x)
        weights = torch.softmax(net.q(h) @ net.k(h).transpose(1, 2), -1)
        x = x + net.o(weights @ net.v(h))
        return net.fc2(F.relu(net.fc1(net.norm2(x))))

    torch.manual_seed(4)
    linear = {name: nn.Linear(12, 12) for name in ("q", "k", "v", "o", "fc1", "fc2")}
    net = Net(forward, norm=nn.LayerNorm(12, elementwise_affine=affine), norm2=nn.LayerNorm(12))
    for name, layer in linear.items():
        setattr(net, name, layer)
    for norm, channel in ((net.norm, 3), (net.norm2, 5)):
        if norm.weight is not None:
            norm.weight.data[channel] = 60.0
            norm.bias.data.uniform_(-0.2, 0.2)
    with torch.no_grad():
        for name, channel in (("q", 3), ("k", 3), ("v", 3), ("fc1", 5)):
            if norm.weight is not None:
                linear[name].weight[:, channel] /= 60.0
    return net.eval()


def tensors(state: ModelState, kind: object) -> list[list[np.ndarray]]:
    """Return the weight and bias of every operator of a kind."""
    nodes = [n for n in state.graph.graph.nodes if n.op == "call_function" and n.target is kind]
    index = 2 if kind is torch.ops.aten.layer_norm.default else 1
    return [
        [get_tensor(state.graph, str(a.target)).numpy() for a in n.args[index : index + 2]]
        for n in nodes
    ]


@pytest.mark.parametrize("affine", [True, False])
def test_it_computes_the_same_and_leaves_the_given_state(affine: bool) -> None:
    net = attention(affine)
    state = state_of(net, TOKENS)
    found = Smooth().apply(state)
    assert same_function(net, found.graph, *TOKENS) < 1e-4
    assert same_function(net, state.graph, *TOKENS) < 1e-5
    assert found.graph is not state.graph
    settings = {"alpha": 0.5, "samples": 128, "batch_size": 16, "layers": 5}
    assert found.history[0].settings == settings


@pytest.mark.parametrize("alpha", [0.25, 0.5, 1.0])
def test_readers_of_one_norm_share_the_papers_factor(alpha: float) -> None:
    net = attention()
    found = Smooth(alpha=alpha).apply(state_of(net, TOKENS))
    x = noise(48, *TOKENS, seed=10)
    with torch.no_grad():
        largest = net.norm(x).abs().amax((0, 1)).numpy()
    old = [layer.weight.detach() for layer in (net.q, net.k, net.v)]
    factor = np.empty(12)
    for j in range(12):
        weight = max(float(w[:, j].abs().max()) for w in old)
        factor[j] = largest[j] ** alpha / weight ** (1 - alpha)
    (gain, shift), *_ = tensors(found, torch.ops.aten.layer_norm.default)
    np.testing.assert_allclose(gain, net.norm.weight.detach().numpy() / factor, rtol=1e-4)
    np.testing.assert_allclose(shift, net.norm.bias.detach().numpy() / factor, rtol=1e-4)
    for (new, _), weight in zip(
        tensors(found, torch.ops.aten.linear.default)[:3], old, strict=True
    ):
        np.testing.assert_allclose(new, weight.detach().numpy() * factor, rtol=1e-4)


def test_alpha_one_makes_activations_alike() -> None:
    net = chain()
    found = Smooth(alpha=1.0).apply(state_of(net))
    x = noise(48, 3, 8, 8, seed=10)
    nodes = {n.name: n for n in found.graph.graph.nodes}
    seen: dict[str, Tensor] = {}

    class Watch(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            seen[n.name] = super().run_node(n)
            return seen[n.name]

    with torch.no_grad():
        Watch(found.graph).run(x)
    fc1, fc2 = (n for n in nodes.values() if n.target is torch.ops.aten.linear.default)
    flattened = seen[fc1.args[0].name].view(48, 12, 16).abs().amax((0, 2))
    hidden = seen[fc2.args[0].name].abs().amax(0)
    for largest in (flattened, hidden):
        live = largest[largest > 0]
        torch.testing.assert_close(live, torch.ones_like(live), atol=1e-3, rtol=0)


def test_a_norm_that_is_read_elsewhere_and_depthwise_layers_are_left_alone() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        h = net.norm(x)
        return h + net.fc(h)

    net = Net(forward, norm=nn.LayerNorm(12), fc=nn.Linear(12, 12)).eval()
    state = state_of(net, TOKENS)
    assert find_readers(state.graph.graph) == {}
    said: list[str] = []
    found = Smooth().apply(replace(state, progress=notes_to(said.append)))
    assert said == ["smooth: no norm or layer can be divided by a factor, the network is unchanged"]
    assert found.history[0].settings["layers"] == 0
    paths = find_readers(state_of(chain()).graph.graph)
    consumers = [n for found in paths.values() for n in found]
    assert all(is_weighted(n) for n in consumers)
    assert "conv2d_1" not in {n.name for n in consumers}
    assert len(consumers) == 3


@pytest.mark.parametrize(("axes", "layers"), [((1, 0, 2), [2]), ((0, 2, 1), [])])
def test_a_norm_is_followed_through_moves_that_keep_its_rows(
    axes: tuple[int, ...], layers: list[int]
) -> None:
    def forward(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        h = net.norm(x)
        rows = net.fc(h.reshape(-1, 12)).reshape(-1, 7, 3)
        moved = net.other(h.permute(axes))
        return rows, moved.transpose(0, 1) if axes[0] else moved

    size = TOKENS[1] if axes[-1] == 2 else TOKENS[0]
    net = Net(forward, norm=nn.LayerNorm(12), fc=nn.Linear(12, 3), other=nn.Linear(size, 2))
    graph = trace(net.eval(), (noise(2, *TOKENS),)).graph
    assert [len(found) for found in find_readers(graph).values()] == layers


def test_the_attention_of_torch_is_smoothed() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        h = net.norm(x)
        return x + net.attention(h, h, h, need_weights=False)[0]

    torch.manual_seed(0)
    attention = nn.MultiheadAttention(12, 2, batch_first=True)
    net = Net(forward, norm=nn.LayerNorm(12), attention=attention).eval()
    net.norm.weight.data[3] = 50.0
    state = state_of(net, TOKENS)
    found = Smooth().apply(state)
    assert found.history[0].settings["layers"] >= 1
    assert same_function(net, found.graph, *TOKENS) < 1e-4
    plain, smooth = (QuantizeStatic().apply(s) for s in (state, found))
    assert decibels(smooth, net, *TOKENS) > decibels(plain, net, *TOKENS) + 1


@pytest.mark.slow
def test_decibels_come_back_behind_outliers() -> None:
    net = attention()
    plain = QuantizeStatic().apply(state_of(net, TOKENS))
    smooth = QuantizeStatic().apply(Smooth().apply(state_of(net, TOKENS)))
    assert decibels(smooth, net, *TOKENS) > decibels(plain, net, *TOKENS) + 3
    net = chain()
    plain = QuantizeStatic().apply(state_of(net))
    smooth = QuantizeStatic().apply(Smooth().apply(state_of(net)))
    assert decibels(smooth, net) > decibels(plain, net) + 3


def test_it_comes_before_quantization() -> None:
    state = QuantizeStatic(samples=4).apply(state_of(chain()))
    with pytest.raises(BadInputError, match=r"works on the float graph.*before quantize_static"):
        Smooth().apply(state)
