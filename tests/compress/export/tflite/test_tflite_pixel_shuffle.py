"""Pixel shuffles are the runtime's own operator, and compute what they computed before."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from file_readers import TFLiteFile
from small_networks import Net, Quantized, noise, noise_task
from torch import Tensor, nn

from edgedl.compress.artifacts.loaded_file import build_and_load
from edgedl.compress.export.tflite.file import TfliteFile
from edgedl.compress.export.tflite.pixel_shuffle import use_depth_to_space
from edgedl.compress.export.tflite.write import to_tflite
from edgedl.compress.graph.run import run_graph
from edgedl.compress.pipeline import compress
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.recipe.recipe import Recipe
from edgedl.compress.state import begin
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.runtime.precision import INT8_INT16

MOVES = ("TRANSPOSE", "RESHAPE")


def inner(block: int, bias: bool = True, groups: int = 1) -> Net:
    """Build a network that goes on behind the shuffle."""
    return Net(
        lambda m, x: m.last(F.pixel_shuffle(F.relu(m.wide(F.relu(m.first(x)))), block)),
        first=nn.Conv2d(3, 6, 3, padding=1),
        wide=nn.Conv2d(6, 4 * block**2, 3, padding=1, bias=bias, groups=groups),
        last=nn.Conv2d(4, 2, 3),
    ).eval()


def outer(block: int) -> Net:
    """Build a super-resolution network: the shuffled picture is its output."""
    return Net(
        lambda m, x: F.pixel_shuffle(m.wide(F.relu(m.first(x))), block),
        first=nn.Conv2d(3, 6, 5, padding=2),
        wide=nn.Conv2d(6, 3 * block**2, 3, padding=1),
    ).eval()


def transposed() -> Net:
    return Net(
        lambda m, x: m.last(F.relu(m.up(F.relu(m.first(x))))),
        first=nn.Conv2d(3, 6, 3, padding=1),
        up=nn.ConvTranspose2d(6, 5, 3, stride=2, padding=1, output_padding=1),
        last=nn.Conv2d(5, 2, 1),
    ).eval()


CASES: dict[str, Callable[[], Net]] = {
    "two": lambda: inner(2),
    "three, no bias": lambda: inner(3, bias=False),
    "at the end": lambda: outer(2),
    "three at the end": lambda: outer(3),
    "transposed convolution": transposed,
}


def stored_bytes(model: bytes) -> int:
    contents = (buffer.data for buffer in TfliteFile(model).model.buffers)
    return sum(len(content) for content in contents if content is not None)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("quantized", [False, True])
def test_it_computes_the_same_without_the_moves(case: str, quantized: bool) -> None:
    made = Quantized(CASES[case](), (noise(8, 3, 7, 9),))
    graph = made.emitted(TFLITE) if quantized else made.graph
    before = to_tflite(graph, made.inputs, quantized, weights_as_they_are=True)
    after = use_depth_to_space(before)
    for xnnpack in (False, True):
        files = [TFLiteFile(content, xnnpack=xnnpack) for content in (before, after)]
        (expected,), (found,) = (file.run(made.arrays) for file in files)
        # Sums in float depend on which channels a kernel takes together.
        np.testing.assert_allclose(found, expected, rtol=0, atol=0 if quantized else 1e-6)
    operators = [TFLiteFile(c, xnnpack=False).operators for c in (before, after)]
    assert operators[0]["DEPTH_TO_SPACE"] == 0
    assert operators[1]["DEPTH_TO_SPACE"] == 1
    # Only inputs and outputs are turned.
    assert operators[1]["RESHAPE"] == 0
    assert operators[1]["TRANSPOSE"] == 2
    assert use_depth_to_space(after) == after
    assert stored_bytes(after) == stored_bytes(before)


@pytest.mark.slow
def test_bytes_that_others_read_stay() -> None:
    """The converter stores what is equal once."""
    net = Net(
        lambda m, x: m.last(F.pixel_shuffle(m.wide(m.first(x)), 2)),
        first=nn.Conv2d(3, 8, 1),
        wide=nn.Conv2d(8, 8, 1),
        last=nn.Conv2d(2, 2, 1),
    ).eval()
    with torch.no_grad():
        net.wide.bias.copy_(net.first.bias)
    made = Quantized(net, (noise(4, 3, 6, 6),))
    before = to_tflite(made.graph, made.inputs, False, weights_as_they_are=True)
    after = use_depth_to_space(before)
    (expected,), (found,) = (TFLiteFile(c).run(made.arrays) for c in (before, after))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def read_twice(m: Net, x: Tensor) -> Tensor:
    x = m.wide(x)
    return F.pixel_shuffle(x, 2).mean((2, 3)) + x.mean((1, 2, 3))[:, None]


@pytest.mark.slow
@pytest.mark.parametrize(
    "net",
    [
        inner(2, groups=2),
        Net(read_twice, wide=nn.Conv2d(3, 8, 1)).eval(),
        Net(lambda m, x: F.pixel_shuffle(x.repeat(1, 4, 1, 1), 2), wide=nn.Identity()).eval(),
    ],
    ids=["grouped", "read twice", "no convolution"],
)
def test_where_the_channels_cannot_be_moved_it_stays(net: nn.Module) -> None:
    made = Quantized(net, (noise(4, 3, 6, 6),))
    file = TFLiteFile(to_tflite(made.graph, made.inputs, False), xnnpack=False)
    assert file.operators["DEPTH_TO_SPACE"] == 0
    np.testing.assert_allclose(file.run(made.arrays)[0], made.outputs(made.graph)[0], atol=1e-5)


@pytest.mark.slow
def test_in_16_bits_the_runtime_has_no_such_operator() -> None:
    state = begin(Subject("up", transposed(), noise_task((3, 8, 8))))
    quantized = QuantizeStatic(activation_bits=16).apply(state)
    file = build_and_load(quantized, TFLITE, INT8_INT16)
    (x,) = (x.numpy() for x in state.subject.example_inputs())
    (found,), (expected,) = file.run((x[:1],)), run_graph(state.graph, (x[:1],))
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.slow
def test_the_certificate_holds_the_shuffled_layer(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    subject = Subject("up", inner(2), noise_task((3, 8, 8)))
    recipe = Recipe("", (QuantizeStatic(),))
    made = compress(subject, recipe, (ORT, TFLITE), tmp_path / "bundle")
    (artifact,) = (a for a in made.bundle.manifest.artifacts if a.name == "tflite-int8")
    layers = {layer.node: layer for layer in artifact.parity.layers.layers}
    assert "pixel_shuffle" in layers
    assert all(layer.max_lsb <= 1 for layer in layers.values())
