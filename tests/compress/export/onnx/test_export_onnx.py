"""ONNX files: integers only once optimized, the table's scales bit for bit, the graph's values."""

import json

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from file_readers import onnx_grids, onnx_operators, optimized_operators, run_onnx
from small_networks import NETWORKS, Net, network, noise
from torch import nn

from edgedl.compress.bundle_files import ENCODINGS
from edgedl.compress.encodings.affine import affine_for
from edgedl.compress.encodings.encodings import Range, weight_scales
from edgedl.compress.encodings.placement import place
from edgedl.compress.errors import ExportError
from edgedl.compress.export.onnx.write import OPSET, describe_onnx, to_onnx
from edgedl.compress.graph.run import run_graph
from edgedl.compress.graph.trace import trace
from edgedl.compress.pipeline import CompressedModel
from edgedl.compress.targets.named import ORT, TENSORRT
from edgedl.compress.targets.target import Target
from edgedl.runtime.precision import INT8

FLOAT_LAYERS = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "Add"}


@pytest.mark.parametrize("name", ["operators", "two_heads", "joined", "gated"])
def test_no_layer_is_left_in_float(name: str) -> None:
    net = network(name)
    found = optimized_operators(net.onnx)
    assert not FLOAT_LAYERS & set(found)
    layers = sum(
        n.target.__name__ in ("conv2d.default", "conv1d.default", "linear.default")
        for n in net.graph.graph.nodes
        if n.op == "call_function"
    )
    assert found["QLinearConv"] + found["QGemm"] == layers
    # What ONNX Runtime has no integer kernel for stands between two pairs; nothing else is float.
    assert not found["Relu"]
    kept = found["Tanh"]
    assert found["QuantizeLinear"] == len(net.inputs) + kept
    assert found["DequantizeLinear"] == len(net.steps) + kept


def test_gates_are_integer_products() -> None:
    found = optimized_operators(network("gated").onnx)
    assert found["QLinearSigmoid"] == 4
    assert found["QLinearMul"] == 4
    assert found["Tanh"] == 1


def test_products_of_activations_are_integer() -> None:
    found = optimized_operators(network("attention").onnx)
    assert found["QLinearMatMul"] == 2
    assert found["QLinearSoftmax"] == found["QLinearAdd"] == found["QGemm"] == 1
    # Linear layers over [N, T, C] multiply integers, and add their bias in float.
    assert found["MatMulIntegerToFloat"] == found["Add"] == 3
    assert not {"MatMul", "Gemm", "Softmax", "FusedMatMul"} & set(found)


def test_the_bundles_file_is_integer_from_end_to_end(compressed: CompressedModel) -> None:
    artifact = compressed.bundle.artifact("ort-int8")
    found = optimized_operators(compressed.bundle.read(artifact.path))
    assert found["QLinearConv"] == 4
    assert found["QGemm"] == found["QLinearAdd"] == found["QLinearGlobalAveragePool"] == 1
    assert found["QLinearAveragePool"] == 1
    assert not FLOAT_LAYERS & set(found)


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_runtime_computes_what_the_emitted_graph_computes(name: str) -> None:
    net = network(name)
    expected = net.outputs(net.emitted(ORT))
    for optimize in (True, False):
        found = run_onnx(net.onnx, net.arrays, optimize)
        for a, b, step in zip(found, expected, net.steps, strict=True):
            assert a.shape == b.shape
            assert np.abs(a - b).max() <= 1.001 * step
            assert np.abs(a - b).mean() <= 0.02 * step


@pytest.mark.parametrize(
    ("name", "target"), [("operators", ORT), ("operators", TENSORRT), ("joined", ORT)]
)
def test_scales_in_the_file_are_the_tables(name: str, target: Target) -> None:
    net = network(name)
    grids, weights = onnx_grids(net.onnx if target is ORT else net.tensorrt)
    placed = place(net.graph.graph, net.encodings, target)
    known = [affine_for(net.encodings.activations[node.name], target) for node in placed]
    assert grids == {(grid.scale, grid.zero_point) for grid in known}
    table = net.encodings
    scales = [weight_scales(a, table.weight_qmax).numpy() for a in table.weights.values()]
    assert bits(weights) == bits(scales)


def bits(vectors: object) -> set[bytes]:
    return {np.asarray(v, np.float32).tobytes() for v in vectors}


@pytest.mark.parametrize("target", [ORT, TENSORRT])
def test_scales_in_the_bundle_are_those_of_its_table(
    compressed: CompressedModel, target: Target
) -> None:
    bundle = compressed.bundle
    table = json.loads(bundle.read(ENCODINGS))
    grids, weights = onnx_grids(bundle.read(bundle.artifact(target.artifact_name(INT8)).path))
    ranges = {Range(r["lo"], r["hi"]) for r in table["activations"].values()}
    known = {(g.scale, g.zero_point) for g in (affine_for(r, target) for r in ranges)}
    assert grids
    assert grids <= known
    qmax = np.float32(2 ** (table["weight_bits"] - 1) - 1)
    assert bits(weights) == bits(np.float32(w) / qmax for w in table["weights"].values())


def test_weights_are_stored_as_int8_and_nothing_is_stored_twice() -> None:
    graph = onnx.load_from_string(network("operators").onnx).graph
    sizes = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    assert {str(a.dtype) for a in sizes.values() if a.ndim > 1} == {"int8"}
    used = {name for node in graph.node for name in node.input}
    assert used >= set(sizes)


def test_files_carry_no_metadata() -> None:
    model = onnx.load_from_string(network("operators").onnx)
    graph = model.graph
    assert not model.metadata_props
    assert not graph.value_info
    for item in [*graph.node, *graph.initializer, *graph.input, *graph.output]:
        assert not item.metadata_props
        assert not item.doc_string
    assert b".py" not in network("operators").onnx
    assert [o.version for o in model.opset_import if o.domain == ""] == [OPSET]


def test_batch_is_free_and_inputs_and_outputs_keep_their_order() -> None:
    net = network("two_heads")
    inputs, outputs = describe_onnx(net.onnx)
    assert [(s.name, s.shape, s.dtype) for s in inputs] == [
        ("x", (None, 3, 6, 6), "float32"),
        ("y", (None, 2, 16), "float32"),
    ]
    assert [(s.name, s.shape) for s in outputs] == [
        ("output_0", (None, 3)),
        ("output_1", (None, 2, 4, 4)),
    ]
    for batch in (1, 3):
        found = run_onnx(net.onnx, tuple(x[:batch] for x in net.arrays))
        assert [len(y) for y in found] == [batch, batch]


def test_float_file_computes_what_the_graph_computes_and_export_is_silent(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def forward(net: Net, x: torch.Tensor) -> torch.Tensor:
        x = F.hardtanh(net.conv(x)) + x.mean(1, keepdim=True)
        return F.adaptive_avg_pool2d(net.norm(x), 1).mean((2, 3))

    net = Net(forward, conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4, affine=False))
    inputs = (noise(6, 3, 7, 7),)
    graph = trace(net.eval(), inputs)
    code = graph.code
    model = to_onnx(graph, inputs)
    assert capfd.readouterr() == ("", "")
    assert graph.code == code
    arrays = tuple(x.numpy() for x in inputs)
    np.testing.assert_allclose(run_onnx(model, arrays)[0], run_graph(graph, arrays)[0], atol=1e-5)
    # Means over height and width have a kernel of their own; the mean over channels stays one.
    found = onnx_operators(model)
    assert found["GlobalAveragePool"] == 2
    assert found["ReduceMean"] == 1


def test_an_operator_without_an_onnx_form_is_one_readable_line() -> None:
    inputs = (noise(2, 3, 3),)
    graph = trace(Net(lambda _, x: torch.linalg.svd(x)[1]), inputs)
    with pytest.raises(ExportError, match=r"torch\.onnx cannot export .*svd") as caught:
        to_onnx(graph, inputs)
    assert len(str(caught.value).splitlines()) == 1
