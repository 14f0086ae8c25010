"""Shapes of recurrent layers are known without their steps."""

from unittest.mock import patch

import pytest
import torch
from small_networks import noise
from torch import nn

from edgedl.compress.graph.trace import export_graph

KINDS = (nn.GRU, nn.LSTM, nn.RNN)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_they_are_those_of_the_layer(kind: type, both_ways: bool, batch_first: bool) -> None:
    layer = kind(4, 6, num_layers=2, bidirectional=both_ways, batch_first=batch_first).eval()
    net = Wrapped(layer, batch_first)
    x = noise(2, 7, 4)
    graph = export_graph(net, (x,))
    expected = net(x)
    found = next(n for n in graph.graph.nodes if n.op == "output").all_input_nodes
    for node, value in zip(found, expected, strict=True):
        assert node.meta["val"].shape[1:] == value.shape[1:]
    torch.testing.assert_close(graph(x), expected)


class Wrapped(nn.Module):
    """All results of a layer, the samples first."""

    def __init__(self, layer: nn.Module, batch_first: bool) -> None:
        super().__init__()
        self.layer, self.batch_first = layer, batch_first

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y, states = self.layer(x if self.batch_first else x.transpose(0, 1))
        states = states if isinstance(states, tuple) else (states,)
        y = y if self.batch_first else y.transpose(0, 1)
        return y, *(state.transpose(0, 1) for state in states)


def test_no_step_is_traced() -> None:
    with patch("torch._decomp.decompositions.one_layer_rnn", side_effect=AssertionError):
        graph = export_graph(nn.GRU(4, 6, batch_first=True).eval(), (noise(2, 2000, 4),))
    assert torch.ops.aten.gru.input in {n.target for n in graph.graph.nodes}
