"""What emitted graphs compute on integers in place of floats, on the runtimes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from file_readers import run_onnx
from small_networks import Net, Quantized, noise, noise_task
from torch import nn

from edgedl.compress.convert.foreign import read_foreign
from edgedl.compress.convert.requantize import requantize
from edgedl.compress.export.exporter import exporter_of
from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.pipeline import compress
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.recipe.recipe import Recipe
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, TENSORRT, TFLITE
from edgedl.compress.targets.target import load_target
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.precision import INT8

_ops = torch.ops.quantized_decomposed


def float_operators(bundle: Bundle, artifact: Artifact) -> list[str]:
    exporter = exporter_of(load_target(artifact.backend))
    return exporter.float_operators(bundle.read(artifact.path))


def conv(channels: int = 4) -> nn.Conv2d:
    return nn.Conv2d(channels, 4, 3, padding=1)


def around(operator: Callable) -> Net:
    torch.manual_seed(0)
    return Net(lambda net, x: net.b(operator(net.a(x))), a=conv(), b=conv()).eval()


def quantized(net: nn.Module) -> Quantized:
    return Quantized(net, (noise(40, 4, 6, 6),))


INTEGER: dict[str, Callable] = {
    "hard sigmoid": lambda x: F.hardsigmoid(3 * x),
    "hard swish": lambda x: F.hardswish(3 * x),
    "hard swish, written out": lambda x: x * F.relu6(x + 3) / 6,
    "numbers": lambda x: 1 - 0.3 * x.sigmoid(),
    "a number alone": lambda x: (x.sigmoid() / 7).flip(3),
    "bounds within the grid": lambda x: F.hardtanh(x, -0.2, 0.3),
    "a ReLU beside what it reads": lambda x: x + F.max_pool2d(F.relu(x), 3, 1, 1),
    "a ReLU behind a pool": lambda x: F.relu(F.max_pool2d(x, 2)),
    "a ReLU between a pool and a branch": lambda x: F.relu(F.max_pool2d(x, 3, 1, 1)) + x,
    "a ReLU6 behind a product": lambda x: F.relu6(3 * x * x.sigmoid()),
    "joined with what is negative": lambda x: torch.cat([F.relu(x[:, :2]), x[:, 2:]], 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("operator", INTEGER.values(), ids=INTEGER)
def test_nothing_is_computed_in_floats(operator: Callable, tmp_path: Path) -> None:
    """``compress`` holds every file against the graph on its runtime, and certifies its layers."""
    subject = Subject("net", around(operator), noise_task((4, 6, 6)))
    recipe = Recipe("int8", (QuantizeStatic(32, 32, "minmax"),))
    made = compress(subject, recipe, (ORT, TFLITE), tmp_path, only=(INT8,))
    assert not made.refusals
    files = [a for a in made.bundle.manifest.artifacts if a.precision == "int8"]
    assert len(files) == 2
    for artifact in files:
        assert float_operators(made.bundle, artifact) == []
        assert max(layer.max_lsb for layer in artifact.parity.layers.layers) <= 1
    (agreement,) = made.bundle.manifest.between
    assert {layer.max_lsb for layer in agreement.layers} <= {0, 1}


@pytest.mark.slow
def test_a_relu_is_folded_into_an_average_pool(tmp_path: Path) -> None:
    """The pool may round the other way at a tie, which the layer behind it sees."""
    net = around(lambda x: F.relu(F.avg_pool2d(x, 2)))
    recipe = Recipe("int8", (QuantizeStatic(32, 32, "minmax"),))
    subject = Subject("net", net, noise_task((4, 6, 6)))
    made = compress(subject, recipe, (ORT, TFLITE), tmp_path, only=(INT8,))
    for artifact in made.bundle.manifest.artifacts:
        if artifact.precision == "int8":
            assert float_operators(made.bundle, artifact) == []
            *before, last = artifact.parity.layers.layers
            assert max(layer.max_lsb for layer in before) <= 1
            assert last.max_lsb <= 3


def called(graph: torch.fx.GraphModule, target: object) -> list[torch.fx.Node]:
    return graph.graph.find_nodes(op="call_function", target=target)


def test_a_hard_swish_is_within_its_steps() -> None:
    net = quantized(around(lambda x: F.hardswish(2 * x)))
    (found,), (plain,) = net.outputs(net.emitted(ORT)), net.outputs(net.graph)
    assert abs(found - plain).max() < 4 * net.steps[0]
    for target in (ORT, TFLITE):
        assert not called(net.emitted(target), aten.hardswish.default)


@pytest.mark.parametrize(("number", "kept"), [(0.25, 0), (-0.25, 1)])
def test_a_positive_factor_costs_nothing(number: float, kept: int) -> None:
    emitted = quantized(around(lambda x: (number * x.sigmoid()).flip(2))).emitted(ORT)
    assert len(called(emitted, aten.mul.Tensor)) == kept
    convolutions = called(emitted, aten.conv2d.default)
    read = [c.args[0].args[0] for c in convolutions]
    assert all(r.target is _ops.quantize_per_tensor.default for r in read)


def test_a_factor_of_a_grid_of_another_kind_is_a_product() -> None:
    """A concat gives its parts a grid of its own."""
    net = quantized(around(lambda x: torch.cat([0.1 * x[:, :2], x[:, 2:]], 1)))
    (product,) = called(net.emitted(ORT), aten.mul.Tensor)
    # The number is a tensor on a grid.
    assert product.args[1].target is _ops.dequantize_per_tensor.default
    assert product.args[1].args[0].op == "get_attr"


def test_clipped_integers_are_those_of_clipped_floats() -> None:
    net = quantized(around(lambda x: torch.cat([x.clamp(-0.3, 0.2)[:, :2], x[:, 2:]], 1)))
    emitted = net.emitted(ORT)
    (clip,) = called(emitted, aten.clamp.default)
    grid = clip.args[0].args[1:3]
    steps = [round(bound / grid[0]) + grid[1] for bound in (-0.3, 0.2)]
    assert list(clip.args[1:]) == steps
    (found,), (plain,) = net.outputs(emitted), net.outputs(net.graph)
    assert abs(found - plain).max() < 6 * net.steps[0]


def test_an_embedding_and_the_layer_with_its_table_have_scales_of_their_own() -> None:
    table = nn.Embedding(12, 4)
    ids = torch.arange(12).repeat(4).view(8, 6)
    net = Net(lambda net, i: F.linear(net.table(i), net.table.weight), table=table).eval()
    emitted = Quantized(net, (ids,)).emitted(ORT)
    (layer,) = called(emitted, aten.linear.default)
    assert layer.args[1].target is _ops.dequantize_per_channel.default
    torch.testing.assert_close(emitted(ids), net(ids), atol=0.1, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("operator", INTEGER.values(), ids=INTEGER)
def test_a_file_of_ones_own_is_carried_over(operator: Callable) -> None:
    """What ``edgedl convert`` reads of it computes the same, to a step of the output."""
    net = quantized(around(operator))
    network = read_foreign(net.onnx, "int8.ort.onnx")
    for target, steps in ((ORT, 1.5), (TENSORRT, 12)):
        made = requantize(network, target)
        assert made.notes == ()
        found, expected = (run_onnx(f, net.arrays, False)[0] for f in (made.content, net.onnx))
        assert abs(found - expected).max() <= steps * net.steps[0]
