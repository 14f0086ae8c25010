"""What is to blame for a destroyed part, found beside operators with several results."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from edgedl.compress.encodings.calibrate import calibrate
from edgedl.compress.encodings.emit import emit
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.graph.trace import trace
from edgedl.compress.parity.blame import find_blame
from edgedl.compress.targets.target import REFERENCE


class Recurrent(nn.Module):
    """Two ranges on one grid, of which a recurrent layer, whose results are a tuple, reads one."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.rnn = nn.Conv1d(4, 8, 1), nn.LSTM(8, 8, batch_first=True)
        with torch.no_grad():
            self.before.weight[:4] *= 300
            self.rnn.weight_ih_l0[:, :4] = 0
            self.rnn.bias_ih_l0.zero_()
            self.rnn.bias_hh_l0.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(self.before(x).transpose(1, 2))[0]


def test_a_layer_in_front_is_to_blame_not_the_result_of_a_tuple() -> None:
    torch.manual_seed(0)
    x = torch.randn(16, 4, 10)
    graph = trace(Recurrent().eval(), (x[:2],))
    network = QuantizedNetwork(graph, calibrate(graph, [(x,)], "minmax"))
    emitted = emit(graph, network.encodings, REFERENCE)
    blame = find_blame(network, emitted, 0, (x.numpy(),))
    assert blame.layer == "before"
    kept = replace(network.encodings, float_nodes=network.encodings.float_nodes | blame.nodes)
    cured = emit(graph, kept, REFERENCE)
    with torch.no_grad():
        wanted, damaged, better = (g(x)[0] for g in (graph, emitted, cured))
    assert (better - wanted).square().sum() < 0.1 * (damaged - wanted).square().sum()
