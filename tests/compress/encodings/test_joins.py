"""Concats that would put what they join on one grid, and what becomes of them."""

from typing import Any

import numpy as np
import pytest
import torch
from file_readers import TFLiteFile, run_onnx
from small_networks import Net, Quantized, noise
from torch import nn

from edgedl.compress.encodings.calibrate import calibrate
from edgedl.compress.encodings.encodings import Range
from edgedl.compress.graph.trace import trace
from edgedl.compress.targets.named import ORT


def boxes_and_scores(scale: float, **more: Any) -> nn.Module:
    torch.manual_seed(1)

    def forward(net: Any, x: Any) -> Any:
        features = net.body(x).relu()
        joined = torch.cat([net.boxes(features) * scale, net.scores(features).sigmoid()], 1)
        return net.behind(joined) if hasattr(net, "behind") else joined.flatten(2)

    return Net(
        forward,
        body=nn.Conv2d(3, 8, 3, padding=1),
        boxes=nn.Conv2d(8, 4, 1),
        scores=nn.Conv2d(8, 2, 1),
        **more,
    )


def decibels(found: np.ndarray, wanted: np.ndarray) -> float:
    return 10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum())


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnx", "tflite"])
def test_boxes_of_pixels_leave_the_scores_their_own_grid(runtime: str) -> None:
    net = Quantized(boxes_and_scores(600.0), (noise(4, 3, 8, 8),))
    assert net.encodings.float_nodes == {"cat"}
    x = net.arrays[0]
    wanted = net.outputs(net.graph)[0]
    if runtime == "onnx":
        found = run_onnx(net.onnx, (x,))[0]
    else:
        found = TFLiteFile(net.tflite).run((x,))[0]
    for part in (slice(0, 4), slice(4, 6)):
        # 25 dB and more; a processor without VNNI saturates and has 22. On one grid: below 10.
        assert decibels(found[:, part], wanted[:, part]) > 20


def test_what_is_alike_stays_on_one_grid() -> None:
    net = Quantized(boxes_and_scores(1.0), (noise(4, 3, 8, 8),))
    assert net.encodings.float_nodes == frozenset()
    ranges = net.encodings.activations
    assert ranges["cat"] == ranges["conv2d_1"]


def test_a_sigmoid_has_the_grid_of_its_kernels_unless_all_that_is_joined_has() -> None:
    net = Quantized(boxes_and_scores(1.0), (noise(4, 3, 8, 8),))
    assert net.encodings.activations["sigmoid"] == Range(0.0, 255 / 256)

    def forward(net: Any, x: Any) -> Any:
        return torch.cat([net.a(x).sigmoid(), net.b(x).sigmoid().flatten(2).view(-1, 2, 8, 8)], 1)

    alike = Quantized(
        Net(forward, a=nn.Conv2d(3, 2, 1), b=nn.Conv2d(3, 2, 1)), (noise(4, 3, 8, 8),)
    )
    assert alike.encodings.activations["cat"] == Range(0.0, 255 / 256)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnx", "tflite"])
@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_a_sigmoid_is_joined_with_what_has_another_grid(runtime: str, scale: float) -> None:
    net = Quantized(boxes_and_scores(scale), (noise(4, 3, 8, 8),))
    x, wanted = net.arrays[0], net.outputs(net.graph)[0]
    found = run_onnx(net.onnx, (x,)) if runtime == "onnx" else TFLiteFile(net.tflite).run((x,))
    for part in (slice(0, 4), slice(4, 6)):
        assert decibels(found[0][:, part], wanted[:, part]) > 18


def test_before_an_integer_layer_one_grid_is_needed_anyhow() -> None:
    net = Quantized(boxes_and_scores(600.0, behind=nn.Conv2d(6, 2, 1)), (noise(4, 3, 8, 8),))
    assert net.encodings.float_nodes == frozenset()


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnx", "tflite"])
def test_what_is_an_output_too_keeps_its_grid_before_an_integer_layer(runtime: str) -> None:
    torch.manual_seed(1)

    def forward(net: Any, x: Any) -> Any:
        features = net.body(x).relu()
        scores = net.scores(features).sigmoid()
        joined = torch.cat([scores, net.boxes(features).relu() * 600], 1)
        return scores, net.behind(joined)

    layers = {"body": (3, 8), "scores": (8, 2), "boxes": (8, 4), "behind": (6, 2)}
    net = Net(forward, **{name: nn.Conv2d(*sizes, 1) for name, sizes in layers.items()})
    quantized = Quantized(net, (noise(4, 3, 8, 8),))
    assert quantized.encodings.float_nodes == {"cat"}
    x, wanted = quantized.arrays[0], quantized.outputs(quantized.graph)
    if runtime == "onnx":
        found = run_onnx(quantized.onnx, (x,))
    else:
        found = TFLiteFile(quantized.tflite).run((x,))
    assert decibels(found[0], wanted[0]) > 35
    assert decibels(found[1], wanted[1]) > 25


def test_a_concat_kept_in_float_frees_what_it_joins() -> None:
    x = noise(4, 3, 8, 8)
    graph = trace(boxes_and_scores(0.5), (x,))
    shared = calibrate(graph, [(x,)], "minmax").activations
    own = calibrate(graph, [(x,)], "minmax", float_nodes=frozenset({"cat"})).activations
    boxes = next(n.name for n in graph.graph.nodes if n.name.startswith("conv2d_1"))
    assert shared[boxes] == shared["cat"]
    assert own[boxes] != own["cat"]


@pytest.mark.slow
def test_what_is_joined_with_rows_of_a_table_has_no_zero_point() -> None:
    torch.manual_seed(2)

    def forward(net: Any, x: Any) -> Any:
        rows = net.table((x[:, :2] > 0).long()).flatten(1)
        return net.fc(torch.cat([rows, net.first(x).relu()], 1))

    module = Net(forward, table=nn.Embedding(2, 3), first=nn.Linear(6, 5), fc=nn.Linear(11, 2))
    net = Quantized(module, (noise(8, 6),))
    joined = net.encodings.activations["cat"]
    assert joined.lo == pytest.approx(-joined.hi * 128 / 127, rel=1e-3)
    assert net.tflite
    graph = net.emitted(ORT)
    assert decibels(net.outputs(graph)[0], net.outputs(net.graph)[0]) > 25
