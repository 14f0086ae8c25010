"""Transposed convolutions written as ordinary ones, against torch's own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F
from rewritten_graphs import assert_numerically_equal
from small_networks import Net, Quantized, noise, noise_task, trained
from torch import Tensor, fx, nn

from edgedl.compress.artifacts.build import ArtifactBuilder
from edgedl.compress.encodings.emit import emit
from edgedl.compress.export.exporter import exporter_of
from edgedl.compress.graph.edit import get_tensor, set_tensor
from edgedl.compress.graph.layers import find_layers
from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.operators.table import is_quantizable
from edgedl.compress.graph.passes.transposed.join import join_transposed_convolutions
from edgedl.compress.graph.trace import trace
from edgedl.compress.pipeline import compress
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.recipe.recipe import Recipe
from edgedl.compress.sparsify.sparsify import Sparsify
from edgedl.compress.state import begin
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, TENSORRT, TFLITE
from edgedl.compress.targets.target import TARGETS, weight_bits
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.precision import BFLOAT16, FLOAT16, FLOAT32, INT8

SHUFFLE = aten.pixel_shuffle.default
OPENED: list[dict[str, Any]] = [
    {"kernel_size": 2, "stride": 2},
    {"kernel_size": 3, "padding": 2, "dilation": 2, "bias": False},
    {"kernel_size": 4, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 2},
    {"kernel_size": 2, "stride": 3},
    {"kernel_size": 5, "stride": 2, "padding": 2, "groups": 2, "bias": False},
    {"kernel_size": 3, "stride": 3, "padding": 2, "dilation": 2},
    {"kernel_size": (2, 5), "stride": 2, "padding": (0, 1), "output_padding": (1, 0)},
    {"kernel_size": 16, "stride": 8, "padding": 4},
    {"kernel_size": 3, "stride": (2, 1), "padding": 1},
    {"kernel_size": (1, 4), "stride": (1, 2), "padding": (0, 1), "groups": 2},
    {"kernel_size": (3, 5), "stride": (2, 3), "output_padding": (1, 2)},
]


def upsampling(norm: bool = False, **options: Any) -> Net:
    up = nn.ConvTranspose2d(4, 6, **options)
    layers = {"up": up, "norm": trained(nn.BatchNorm2d(6)) if norm else nn.Identity()}
    return Net(lambda net, x: F.relu(net.norm(net.up(x))), **layers).eval()


def called(graph: fx.GraphModule) -> list[fx.Node]:
    return [n for n in graph.graph.nodes if n.op == "call_function"]


def stored(graph: fx.GraphModule, node: fx.Node, argument: int) -> Tensor:
    return get_tensor(graph, str(node.args[argument].target))


# ``trace`` compares every graph with its module.
@pytest.mark.slow
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("options", OPENED, ids=str)
def test_opened_and_joined_again_it_is_what_it_was(options: dict[str, Any], norm: bool) -> None:
    module, x = upsampling(norm, **options), noise(2, 4, 5, 6)
    graph = trace(module, (x,))
    targets = [n.target for n in called(graph)]
    assert aten.conv_transpose2d.input not in targets
    assert aten.conv2d.default in targets
    assert not {aten.batch_norm.default, aten.mul.Tensor} & {*targets}
    # Where a runtime folds it into the convolution.
    assert targets[targets.index(aten.conv2d.default) + 1] is aten.relu.default
    assert all(isinstance(n.meta["val"].shape[0], torch.SymInt) for n in called(graph))
    joined = join_transposed_convolutions(graph)
    assert [n.target for n in called(joined)] == [aten.conv_transpose2d.input, aten.relu.default]
    assert torch.equal(joined(x), module(x)) or norm
    assert_numerically_equal(module, joined, x)
    if not norm:
        assert torch.equal(stored(joined, called(joined)[0], 1), module.up.weight)


def test_every_weight_is_used_once() -> None:
    graph = trace(upsampling(kernel_size=5, stride=2), (noise(1, 4, 5, 6),))
    convolution = next(n for n in called(graph) if n.target is aten.conv2d.default)
    weight = stored(graph, convolution, 1)
    assert weight.shape == (6 * 4, 4, 3, 3)
    assert int((weight != 0).sum()) == 4 * 6 * 5 * 5


@pytest.mark.parametrize(
    ("options", "cropped"),
    [
        ({"kernel_size": 2, "stride": 2, "padding": 3}, True),
        ({"kernel_size": 2, "stride": (3, 1), "padding": (2, 0)}, True),
    ],
)
def test_what_cannot_be_opened_is_cropped_where_it_must(
    options: dict[str, Any], cropped: bool
) -> None:
    graph = trace(upsampling(**options), (noise(2, 4, 5, 6),))
    targets = [n.target for n in called(graph)]
    assert aten.conv_transpose2d.input in targets
    assert targets.count(aten.slice.Tensor) == (2 if cropped else 0)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 4, "stride": 2, "padding": 1},
        {"kernel_size": 5, "stride": 3, "padding": 1, "output_padding": 1, "groups": 2},
        {"kernel_size": 3, "dilation": 2, "bias": False},
    ],
    ids=str,
)
def test_series_are_pictures_of_one_row(options: dict[str, Any], norm: bool) -> None:
    up = nn.ConvTranspose1d(4, 6, **options)
    layers = {"up": up, "norm": trained(nn.BatchNorm1d(6)) if norm else nn.Identity()}
    module, x = Net(lambda net, x: F.relu(net.norm(net.up(x))), **layers).eval(), noise(2, 4, 7)
    graph = trace(module, (x,))
    targets = [n.target for n in called(graph)]
    assert targets[targets.index(aten.conv2d.default) + 1] is aten.relu.default
    assert all(is_quantizable(n) for n in called(graph))
    other = noise(5, 4, 7, seed=2)
    assert_numerically_equal(module, graph, other)
    joined = join_transposed_convolutions(graph)
    expected = [
        aten.unsqueeze.default,
        aten.conv_transpose2d.input,
        aten.relu.default,
        aten.squeeze.dim,
    ]
    assert [n.target for n in called(joined)] == expected
    assert_numerically_equal(module, joined, other)


def test_a_padding_of_the_network_s_own_stays() -> None:
    up = nn.ConvTranspose2d(4, 6, 3, 2, padding=1, output_padding=1)
    net = Net(lambda net, x: net.up(F.pad(x, [1, 0, 0, 1])), up=up).eval()
    x = noise(2, 4, 5, 6)
    joined = join_transposed_convolutions(trace(net, (x,)))
    assert torch.equal(joined(x), net(x))


@pytest.mark.parametrize(("argument", "place"), [(1, (3, 0, 0, 0)), (2, (3,))])
def test_phases_that_a_stage_changed_apart_stay_open(argument: int, place: tuple[int, ...]) -> None:
    graph = trace(upsampling(kernel_size=3, stride=2), (noise(2, 4, 5, 6),))
    convolution = next(n for n in called(graph) if n.target is aten.conv2d.default)
    changed = stored(graph, convolution, argument).clone()
    changed[place] += 1
    set_tensor(graph, str(convolution.args[argument].target), changed)
    targets = [n.target for n in called(join_transposed_convolutions(graph))]
    assert SHUFFLE in targets
    assert aten.conv_transpose2d.input not in targets


def test_a_graph_without_any_is_returned_as_it_is() -> None:
    graph = trace(Net(lambda net, x: net.layer(x), layer=nn.Conv2d(4, 6, 3)), (noise(2, 4, 5, 6),))
    assert join_transposed_convolutions(graph) is graph


@pytest.mark.slow
def test_float_files_hold_what_their_runtime_computes_faster() -> None:
    from ai_edge_litert.interpreter import Interpreter

    module = upsampling(kernel_size=4, stride=2, padding=1)
    builder = ArtifactBuilder(begin(Subject("up", module, noise_task((4, 5, 6)))))
    for precision in (FLOAT32, FLOAT16):
        nodes = onnx.load_from_string(builder.file(ORT, precision)[1]).graph.node
        assert "ConvTranspose" in [n.op_type for n in nodes]
    # TensorRT's builder refuses that of bfloat16.
    nodes = onnx.load_from_string(builder.file(TENSORRT, BFLOAT16)[1]).graph.node
    assert "ConvTranspose" not in [n.op_type for n in nodes]
    model = Interpreter(model_content=builder.file(TFLITE, FLOAT32)[1])
    operators = {d["op_name"] for d in model._get_ops_details()}
    assert "TRANSPOSE_CONV" not in operators
    assert "CONV_2D" in operators


PADDED = {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1, "groups": 2}


def between(**options: Any) -> Net:
    return Net(
        lambda net, x: net.last(F.relu(net.up(net.first(x)))),
        first=nn.Conv2d(3, 4, 1),
        up=nn.ConvTranspose2d(4, 6, **options),
        last=nn.Conv2d(6, 2, 3),
    )


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"kernel_size": 2, "stride": 2}, PADDED], ids=str)
def test_int8_files_compute_in_integers_what_the_graph_computes(options: dict[str, Any]) -> None:
    found = Quantized(between(**options), (noise(32, 3, 5, 6),), bits=weight_bits((ORT,)))
    assert exporter_of(ORT).float_operators(found.onnx) == []
    assert exporter_of(TFLITE).float_operators(found.tflite) == []


def test_one_that_is_kept_float_is_the_operator_for_onnx_runtime() -> None:
    found = Quantized(between(**PADDED), (noise(32, 3, 5, 6),))
    (up,) = find_layers(found.graph.graph.nodes, ["up"]) & {
        n for n in found.graph.graph.nodes if n.target is aten.conv2d.default
    }
    kept = replace(found.encodings, float_nodes=frozenset({up.name}))
    targets = {t: [n.target for n in called(emit(found.graph, kept, t))] for t in TARGETS}
    assert aten.conv_transpose2d.input in targets[ORT]
    assert aten.conv_transpose2d.input in targets[TENSORRT]
    assert aten.conv_transpose2d.input not in targets[TFLITE]
    torch.testing.assert_close(
        emit(found.graph, kept, ORT)(*found.inputs),
        emit(found.graph, kept, TFLITE)(*found.inputs),
        rtol=0,
        atol=2 * found.steps[0],
    )


@pytest.mark.slow
def test_its_file_is_certified_layer_by_layer(tmp_path: Path) -> None:
    subject = Subject("up", between(**PADDED).eval(), noise_task((3, 5, 6)))
    recipe = Recipe("int8", (QuantizeStatic(32, 32, weight_bits=weight_bits((ORT,))),))
    made = compress(subject, recipe, (TFLITE,), tmp_path, only=(INT8,))
    assert not made.refusals
    (artifact,) = [a for a in made.bundle.manifest.artifacts if a.precision == "int8"]
    assert artifact.parity is not None


def test_sparsity_says_that_they_stay() -> None:
    up = nn.ConvTranspose2d(8, 4, 2, stride=2)
    net = Net(lambda net, x: net.up(net.conv(x)), conv=nn.Conv2d(4, 8, 1), up=up)
    start = begin(Subject("up", net.eval(), noise_task((4, 5, 5))))
    left = Sparsify(pattern="2:4").apply(start).history[-1].settings["left"]
    assert left == ("up.weight: transposed convolutions stay as they are",)
    with pytest.raises(BadInputError, match=r"up\.weight: transposed"):
        Sparsify(keep=("conv",)).apply(start)
