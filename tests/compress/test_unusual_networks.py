"""Networks at the edge of what is understood: right, or refused in one line, never wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from file_readers import optimized_operators, run_onnx
from small_networks import Net, Quantized, noise, noise_task, trained
from torch import Tensor, nn

from edgedl.compress.export.onnx.write import to_onnx
from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.trace import TraceError, trace
from edgedl.compress.pipeline import compress
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.runtime.precision import FLOAT16, FLOAT32
from edgedl.runtime.runner import Runner
from edgedl.runtime.selfcheck.golden import check_golden
from edgedl.runtime.selfcheck.layers import check_layers


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "axes"), [((7, 6), (-2, -1)), ((2, 3, 4, 5), (2, 3)), ((2, 3, 4, 5), (-2, -1))]
)
def test_mean_of_another_rank_is_no_global_pool(
    shape: tuple[int, ...], axes: tuple[int, int]
) -> None:
    net, x = Net(lambda _, x: x.mean(axes, keepdim=True)), noise(4, *shape)
    (found,) = run_onnx(to_onnx(trace(net, (x,)), (x,)), (x.numpy(),))
    np.testing.assert_allclose(found, net(x), atol=1e-5)


def test_activation_that_onnxruntime_keeps_leaves_the_convolutions_in_int8() -> None:
    wide = nn.Conv2d(3, 4, 3)
    wide.weight.data *= 8
    net = Net(lambda n, x: n.b(F.hardtanh(n.a(x))), a=wide, b=nn.Conv2d(4, 2, 1))
    quantized = Quantized(net, (noise(16, 3, 8, 8),))
    assert optimized_operators(quantized.onnx)["QLinearConv"] == 2


def test_padding_with_a_value_is_not_clipped() -> None:
    net = Net(lambda s, x: s.a(F.pad(x, (1, 1, 1, 1), value=9.0)), a=nn.Conv2d(3, 4, 3))
    quantized = Quantized(net, (noise(16, 3, 8, 8),))
    error = quantized.outputs(quantized.emitted(ORT))[0] - quantized.outputs(quantized.graph)[0]
    assert np.abs(error).max() < 6 * quantized.steps[0]


@pytest.mark.slow
def test_what_is_folded_into_the_batch_is_certified(tmp_path: Path) -> None:
    """Window partition: the inner tensors have more rows than there are samples."""

    def windows(net: Net, x: Tensor) -> Tensor:
        y = F.relu(net.a(x)).permute(0, 2, 3, 1).reshape(-1, 4, 8)
        return net.c(net.b(y).relu().reshape(-1, 16, 8).mean(1))

    layers = {"a": nn.Conv2d(3, 8, 3, padding=1), "b": nn.Linear(8, 8), "c": nn.Linear(8, 3)}
    subject = Subject("windows", Net(windows, **layers).eval(), noise_task((3, 4, 4)))
    made = compress(subject, load_recipe("static_w8c_a8"), (ORT, TFLITE), tmp_path)
    assert not made.refusals
    for artifact in made.bundle.manifest.artifacts:
        if artifact.precision == "int8":
            assert check_layers(made.bundle, artifact) is not None


def soft(net: Net, x: Tensor) -> Tensor:
    return net.b(torch.softmax(net.a(x), 1)).flatten(1)


def overhanging_pool(net: Net, x: Tensor) -> Tensor:
    return net.b(F.avg_pool2d(net.a(x), 3, 2, ceil_mode=True)).flatten(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("forward", "last"), [(soft, nn.Conv2d(4, 2, 8)), (overhanging_pool, nn.Conv2d(4, 2, 4))]
)
def test_what_ships_passes_its_own_golden_check(
    tmp_path: Path, forward: object, last: nn.Module
) -> None:
    net = Net(forward, a=nn.Conv2d(3, 4, 1), b=last)
    subject = Subject("edge", net, noise_task((3, 8, 8)))
    made = compress(subject, load_recipe("static_w8c_a8"), (ORT, TFLITE), tmp_path)
    made.bundle.verify()
    for artifact in made.bundle.manifest.artifacts:
        assert check_golden(Runner(made.bundle, artifact)).passed
    names = {a.name for a in made.bundle.manifest.artifacts} | {r.name for r in made.refusals}
    assert {"ort-int8", "tflite-int8"} <= names


@pytest.mark.parametrize("features", [4, 5])
def test_batch_norm_over_time_is_not_folded_into_a_linear_layer(features: int) -> None:
    net = nn.Sequential(nn.Linear(5, features), trained(nn.BatchNorm1d(5)))
    graph = trace(net.eval(), (noise(4, 5, 5),))
    (layer,) = graph.graph.find_nodes(op="call_function", target=aten.linear.default)
    assert layer.args[1].target == "0.weight"
    assert graph.graph.find_nodes(op="call_function", target=aten.conv1d.default)


def test_grey_picture_normalised_to_three_channels() -> None:
    mean, std = nn.Buffer(torch.rand(1, 3, 1, 1)), nn.Buffer(torch.rand(1, 3, 1, 1) + 1)
    trace(Net(lambda s, x: (x - s.m) / s.d, m=mean, d=std), (noise(4, 1, 8, 8),))


def test_adaptive_pool_of_three_dimensions() -> None:
    trace(Net(lambda s, x: F.adaptive_avg_pool2d(x, 1)), (noise(4, 8, 8),))


def test_dropout_does_not_stand_between_convolution_and_batch_norm() -> None:
    norm = trained(nn.BatchNorm2d(4))
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5), norm, nn.Dropout(0.5)).eval()
    graph = trace(net, (noise(2, 3, 8, 8),))
    calls = [n.target for n in graph.graph.nodes if n.op == "call_function"]
    assert calls == [aten.conv2d.default]


@pytest.mark.parametrize("net", [nn.Linear(3, 2).half(), Net(lambda s, x: x.mean(0))])
def test_interfaces_that_cannot_ship_are_refused_in_one_line(net: nn.Module) -> None:
    with pytest.raises(TraceError) as refused:
        trace(net.eval(), (noise(2, 3),))
    assert len(str(refused.value).splitlines()) == 1


def test_training_mode_of_the_users_module_is_restored() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Sequential(nn.ReLU())).train()
    # A norm whose statistics are frozen.
    net[1].eval()
    before = [m.training for m in net.modules()]
    trace(net, (noise(2, 3),))
    assert [m.training for m in net.modules()] == before
    net.append(nn.Linear(7, 7))
    with pytest.raises(TraceError):
        trace(net, (noise(2, 3),))
    assert [m.training for m in net.modules()] == [*before, True]


@pytest.mark.slow
def test_a_precision_that_torch_has_no_kernels_for(tmp_path: Path) -> None:
    """There are no half kernels for the 3-d average pool inside this norm."""
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.LocalResponseNorm(3)).eval()
    subject = Subject("norm", net, noise_task((3, 6, 6)))
    made = compress(subject, load_recipe("float"), (ORT,), tmp_path, only=(FLOAT32, FLOAT16))
    assert not made.refusals
    parity = made.bundle.artifact("ort-float16").parity
    assert parity is not None
    assert (parity.outputs[0].float32_sqnr_db or 0) > 50
