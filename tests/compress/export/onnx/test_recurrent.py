"""Recurrent networks on their way: any length, one ONNX operator a layer, honest refusals."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from small_networks import noise_task
from torch import nn

from edgedl.compress.errors import ExportError
from edgedl.compress.export.onnx.write import describe_onnx, to_onnx
from edgedl.compress.export.ort.dynamic import dynamic_onnx
from edgedl.compress.graph.lengths import free_output_axes, shortened
from edgedl.compress.graph.run import count_macs
from edgedl.compress.graph.trace import TraceError, trace
from edgedl.compress.pipeline import compress
from edgedl.compress.recipe.default_recipe import default_recipe
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT
from edgedl.compress.targets.target import weight_bits
from edgedl.runtime.precision import INT8
from edgedl.runtime.runner import Runner

SEQUENCE = (0, 1)


class States(nn.Module):
    """A recurrent layer whose every state is an output: [N, T, 3] -> [N, T, H * directions]."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


def make(kind, **settings):
    torch.manual_seed(0)
    return States(kind(3, 5, batch_first=True, **settings)).eval()


def traced(net, length=12):
    x = torch.randn(2, length, 3)
    return trace(net, (x,), SEQUENCE), x


LAYERS = [
    pytest.param(nn.RNN, {}, "RNN", id="rnn"),
    pytest.param(nn.RNN, {"nonlinearity": "relu"}, "RNN", id="rnn_relu"),
    pytest.param(nn.RNN, {"num_layers": 2, "bidirectional": True}, "RNN", id="rnn_2_both"),
    pytest.param(nn.RNN, {"bias": False}, "RNN", id="rnn_no_bias"),
    pytest.param(nn.LSTM, {}, "LSTM", id="lstm"),
    pytest.param(nn.LSTM, {"num_layers": 2, "bidirectional": True}, "LSTM", id="lstm_2_both"),
    pytest.param(nn.GRU, {}, "GRU", id="gru"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "settings", "operator"), LAYERS)
def test_onnx_runtime_computes_every_length_with_one_operator_a_layer(kind, settings, operator):
    net = make(kind, **settings)
    graph, x = traced(net)
    content = to_onnx(graph, (x,), SEQUENCE)
    found = [n.op_type for n in onnx.load_from_string(content).graph.node]
    assert found.count(operator) == settings.get("num_layers", 1)
    inputs, outputs = describe_onnx(content)
    assert inputs[0].shape == (None, None, 3)
    assert outputs[0].shape[:2] == (None, None)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for shape in [(1, 1, 3), (3, 5, 3), (2, 40, 3)]:
        fresh = torch.randn(shape)
        (y,) = session.run(None, {inputs[0].name: fresh.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(y, net(fresh).numpy(), atol=1e-5)


def test_a_network_for_one_length_says_so(refused):
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(12 * 3, 2)

        def forward(self, x):
            return self.fc(x.flatten(1))

    with pytest.raises(TraceError, match=r"does not take inputs \[\[2, 6, 3\]\]"):
        traced(Fixed().eval())


def test_a_length_baked_in_by_tracing_is_found():
    class Baked(nn.Module):
        def forward(self, x):
            return x.reshape(x.shape[0], int(x.shape[1]), 3) * 2.0 / float(x.shape[1])

    with pytest.raises(TraceError, match="free_axes"):
        traced(Baked().eval())


def test_shortened_halves_all_free_axes_but_the_batch():
    x = torch.arange(24.0).reshape(2, 4, 3)
    (half,) = shortened((x,), (0, 1))
    torch.testing.assert_close(half, x[:, :2])
    (one,) = shortened((x[:, :1],), (0, 1))
    assert one.shape == (2, 1, 3)


def test_free_output_axes_follow_the_inputs():
    graph, x = traced(make(nn.GRU))
    assert free_output_axes(graph, (x,), SEQUENCE) == [(0, 1)]
    assert free_output_axes(graph, (x,), (0,)) == [(0,)]


def test_lstm_is_quantized_and_close():
    net = make(nn.LSTM)
    graph, x = traced(net)
    content = dynamic_onnx(to_onnx(graph, (x,), SEQUENCE), weight_bits((ORT,)))
    operators = {n.op_type for n in onnx.load_from_string(content).graph.node}
    assert "DynamicQuantizeLSTM" in operators
    assert "LSTM" not in operators
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    fresh = torch.randn(4, 30, 3)
    (y,) = session.run(None, {session.get_inputs()[0].name: fresh.numpy()})
    with torch.no_grad():
        error = np.abs(y - net(fresh).numpy()).max()
    assert 0 < error < 0.02


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [(nn.GRU, "GRU"), (nn.RNN, "RNN")])
def test_what_onnx_runtime_cannot_quantize_is_named(kind, name):
    graph, x = traced(make(kind))
    with pytest.raises(ExportError, match=f"no int8 kernel for the operator {name}"):
        dynamic_onnx(to_onnx(graph, (x,), SEQUENCE), weight_bits((ORT,)))


def test_linear_layers_beside_a_gru_are_quantized():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.before, self.after = nn.Linear(3, 64), nn.Linear(64, 200)
            self.gru = nn.GRU(64, 64, batch_first=True)

        def forward(self, x):
            return self.after(self.gru(self.before(x).relu())[0])

    torch.manual_seed(0)
    net = Wide().eval()
    graph, x = traced(net)
    content = dynamic_onnx(to_onnx(graph, (x,), SEQUENCE), weight_bits((ORT,)))
    operators = {n.op_type for n in onnx.load_from_string(content).graph.node}
    assert {"GRU", "MatMulInteger"} <= operators
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    fresh = torch.randn(4, 30, 3)
    (y,) = session.run(None, {session.get_inputs()[0].name: fresh.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(y, net(fresh).numpy(), atol=0.02)


def test_nothing_to_quantize_is_said():
    graph = trace(nn.ReLU().eval(), (torch.randn(2, 3),))
    with pytest.raises(ExportError, match="no linear or LSTM layer"):
        dynamic_onnx(to_onnx(graph, (torch.randn(2, 3),)), 8)


@pytest.mark.parametrize(
    ("net", "shape", "name"),
    [
        (lambda: make(nn.LSTM), (2, 6, 3), "dynamic_w8_afp32"),
        (lambda: make(nn.RNN), (2, 6, 3), "dynamic_w8_afp32"),
        (lambda: nn.Conv2d(3, 4, 3).eval(), (2, 3, 8, 8), "static_w8c_a8_rounded"),
        (lambda: nn.Linear(3, 4).eval(), (2, 3), "static_w8c_a8_rounded"),
        (lambda: nn.Tanh().eval(), (2, 3), "float"),
    ],
    ids=["lstm", "rnn", "conv", "linear", "none"],
)
def test_default_recipe(net, shape, name):
    found, reason = default_recipe(trace(net(), (torch.randn(shape),)))
    assert found == name
    assert reason.startswith("the network")


class Reader(nn.Module):
    """Convolutions, then a recurrent layer over the columns."""

    def __init__(self, recurrent, width):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.layer = recurrent(8 * 6, width, batch_first=True)

    def forward(self, x):
        return self.layer(self.conv(x).relu().flatten(1, 2).transpose(1, 2))[0]


def test_convolutions_beside_a_recurrent_layer_go_static():
    found, reason = default_recipe(trace(Reader(nn.GRU, 4).eval(), (torch.randn(2, 1, 6, 12),)))
    assert found == "hybrid_w8c_a8"
    assert "% of the multiply-adds are in convolutions" in reason
    wide = trace(Reader(nn.LSTM, 64).eval(), (torch.randn(2, 1, 6, 12),))
    assert default_recipe(wide)[0] == "dynamic_w8_afp32"


@pytest.mark.slow
def test_a_hybrid_file_has_integer_convolutions_and_a_dynamic_lstm(tmp_path):
    torch.manual_seed(0)
    net = Reader(nn.LSTM, 4).eval()
    subject = Subject("reader", net, noise_task((1, 6, 12)))
    made = compress(subject, load_recipe("hybrid_w8c_a8"), (ORT,), tmp_path, only=(INT8,))
    artifact = made.bundle.artifact("ort-int8")
    model = onnx.load_from_string(made.bundle.read(artifact.path))
    operators = [n.op_type for n in model.graph.node]
    assert "DynamicQuantizeLSTM" in operators
    assert "LSTM" not in operators
    makers = {name: n.op_type for n in model.graph.node for name in n.output}
    (conv,) = [n for n in model.graph.node if n.op_type == "Conv"]
    assert makers[conv.input[0]] == "DequantizeLinear"
    x = torch.randn(20, 1, 6, 12)
    with Runner(made.bundle, artifact) as runner, torch.no_grad():
        (found,), wanted = runner(x.numpy()), net(x).numpy()
    assert 10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()) > 20


class Tones(nn.Module):
    """A convolution along time, then a recurrent layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.layer = nn.Conv1d(6, 32, 5, padding=2), nn.LSTM(32, 8, batch_first=True)

    def forward(self, x):
        return self.layer(self.conv(x.transpose(1, 2)).relu().transpose(1, 2))[0]


@pytest.mark.slow
def test_a_hybrid_file_of_any_length_is_judged_by_the_one_rule(tmp_path):
    torch.manual_seed(0)
    subject = Subject("tones", Tones().eval(), noise_task((20, 6)), free_axes=SEQUENCE)
    made = compress(subject, load_recipe("hybrid_w8c_a8"), (ORT,), tmp_path, only=(INT8,))
    assert "ort-int8" not in [refusal.name for refusal in made.refusals]
    assert made.bundle.artifact("ort-int8").inputs[0].shape == (None, None, 6)


class Stacked(nn.Module):
    """Two recurrent layers, the upper one over steps first."""

    def __init__(self, lower, upper):
        super().__init__()
        self.lower = lower(3, 5, batch_first=True, bidirectional=True)
        self.upper = upper(10, 4)

    def forward(self, x):
        x = self.lower(x)[0].transpose(0, 1)
        return self.upper(x)[0].transpose(0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("lower", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("upper", [nn.LSTM, nn.GRU, nn.RNN])
def test_stacked_layers_take_any_length(lower, upper):
    torch.manual_seed(0)
    net = Stacked(lower, upper).eval()
    graph, x = traced(net)
    content = to_onnx(graph, (x,), SEQUENCE)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for shape in [(1, 1, 3), (3, 5, 3), (2, 40, 3)]:
        fresh = torch.randn(shape)
        (y,) = session.run(None, {session.get_inputs()[0].name: fresh.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(y, net(fresh).numpy(), atol=1e-5)


def test_projections_are_refused_in_one_line():
    net = States(nn.LSTM(3, 5, proj_size=2, batch_first=True)).eval()
    graph, x = traced(net)
    with pytest.raises(ExportError, match="projections"):
        to_onnx(graph, (x,), SEQUENCE)


def test_attention_goes_dynamic():
    class Attention(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x)

    assert default_recipe(trace(Attention().eval(), (torch.randn(2, 4, 8),)))[0].startswith("dyn")


def test_macs_of_a_recurrent_layer_are_counted():
    # 12 steps of 4 gates of 5 units over 3 inputs and 5 states.
    assert count_macs(make(nn.LSTM), (torch.randn(1, 12, 3),)) == 12 * 4 * 5 * (3 + 5)
