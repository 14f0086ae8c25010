"""Who is to blame for an output that integers destroy."""

from typing import Any

import pytest
import torch
from small_networks import Net, Quantized, noise
from torch import nn

from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.parity.blame import Blame, find_blame, noisiest_layers
from edgedl.compress.targets.named import ORT


def blamed(module: nn.Module, output: int = 0, *shape: int) -> Blame:
    net = Quantized(module, (noise(32, *shape),))
    network = QuantizedNetwork(net.graph, net.encodings)
    return find_blame(network, net.emitted(ORT), output, net.arrays)


def two_ranges(scale: float) -> nn.Module:
    torch.manual_seed(0)
    net = Net(
        lambda n, x: (n.good(x), n.bad(n.body(x).relu())),
        good=nn.Linear(6, 3),
        body=nn.Linear(6, 16),
        bad=nn.Linear(16, 4),
    )
    net.bad.weight.data[2:] *= scale
    net.bad.bias.data[2:] *= scale
    return net


def test_the_layer_whose_result_has_two_ranges() -> None:
    found = blamed(two_ranges(1e-3), 1, 6)
    assert found.layer == "bad"
    assert found.cure == "--keep-float bad"
    assert found.nodes


def test_only_what_is_on_the_way_is_blamed() -> None:
    assert blamed(two_ranges(1e-3), 0, 6).layer in ("good", "")


@pytest.mark.parametrize(
    ("choose", "name"),
    [
        (lambda s: s.topk(2, 1)[1], "topk"),
        (lambda s: s.sort(1)[1][:, :2], "sort"),
        (lambda s: s.argmax(1, keepdim=True), "argmax"),
    ],
)
def test_what_chooses_by_close_values_is_named(choose: Any, name: str) -> None:
    torch.manual_seed(0)

    def forward(net: Any, x: Any) -> Any:
        places = choose(net.scores(x.flatten(1)))
        return net.values(x).gather(1, places.unsqueeze(2).expand(-1, -1, x.shape[2]))

    module = Net(forward, scores=nn.Linear(40, 16), values=nn.Conv1d(8, 16, 1))
    # On the grid of 8 bits many of them are one number.
    module.scores.weight.data *= 0.02
    module.scores.bias.data.fill_(10.0)
    found = blamed(module, 0, 8, 5)
    assert found.layer == name
    assert found.nodes == frozenset()
    assert "chooses among close values" in found.cure


def test_layers_are_ranked_by_what_they_lose() -> None:
    net = Quantized(two_ranges(1e-3), (noise(32, 6),))
    network = QuantizedNetwork(net.graph, net.encodings)
    ranked = noisiest_layers(network, net.emitted(ORT), net.arrays)
    assert {name for name, _ in ranked} == {"good", "body", "bad"}
    assert ranked[0][0] == "bad"
    assert ranked == sorted(ranked, key=lambda layer: -layer[1])
