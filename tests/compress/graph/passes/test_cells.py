"""Recurrent cells: every kind becomes its layer, which is quantized as such."""

import numpy as np
import pytest
import torch
from rewritten_graphs import assert_numerically_equal
from torch import Tensor, nn

from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.trace import export_graph, trace
from edgedl.compress.pipeline import compress
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT
from edgedl.runtime.runner import Runner
from edgedl.runtime.task.task import ArrayTask, Samples

INPUTS = (torch.randn(3, 8), torch.randn(3, 16), torch.randn(3, 16))


class Step(nn.Module):
    """One step of a cell, with its states as inputs and outputs."""

    def __init__(self, cell: nn.Module, twice: bool = False) -> None:
        super().__init__()
        self.cell, self.twice = cell, twice

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        is_lstm = isinstance(self.cell, nn.LSTMCell)
        h, c = self.cell(x, (h, c)) if is_lstm else (self.cell(x, h), c * 2)
        if self.twice:
            h, c = self.cell(x, (h, c)) if is_lstm else (self.cell(x, h), c * 2)
        return c, h


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("cell", "layer"),
    [
        (nn.LSTMCell, aten.lstm.input),
        (nn.GRUCell, aten.gru.input),
        (nn.RNNCell, aten.rnn_tanh.input),
        (lambda i, o, bias: nn.RNNCell(i, o, bias, "relu"), aten.rnn_relu.input),
    ],
)
def test_a_cell_becomes_its_layer(cell, layer, bias) -> None:
    net = Step(cell(8, 16, bias=bias)).eval()
    exported, graph = export_graph(net, INPUTS), trace(net, INPUTS)
    assert layer in [node.target for node in graph.graph.nodes]
    assert_numerically_equal(exported, graph, *INPUTS)


def test_a_cell_in_a_loop_keeps_one_copy_of_its_weights() -> None:
    graph = trace(Step(nn.LSTMCell(8, 16), twice=True).eval(), INPUTS)
    assert [n.target for n in graph.graph.nodes].count(aten.lstm_cell.default) == 2


@pytest.mark.slow
def test_the_weights_of_a_cell_get_8_bits(tmp_path) -> None:
    torch.manual_seed(0)
    net = Step(nn.LSTMCell(64, 256)).eval()
    rng = np.random.default_rng(0)
    inputs = tuple(rng.standard_normal((16, n)).astype(np.float32) for n in (64, 256, 256))
    samples = Samples(inputs, np.zeros(16))
    task = ArrayTask(
        "steps",
        {"calibration": lambda: samples, "test": lambda: samples},
        "none",
        lambda outputs, labels: np.zeros(len(labels)),
    )
    made = compress(Subject("step", net, task), None, (ORT,), tmp_path)
    dynamic = made.bundle.artifact("ort-dynamic_int8")
    assert (tmp_path / dynamic.path).stat().st_size < 0.4 * 4 * sum(
        p.numel() for p in net.parameters()
    )
    with Runner(made.bundle, dynamic) as runner, torch.no_grad():
        wanted = net(*(torch.tensor(x) for x in inputs))
        for found, reference in zip(runner(*inputs), wanted, strict=True):
            np.testing.assert_allclose(found, reference, atol=0.05)
