"""Certificates counted again by hand, and the first layer that a broken file gets wrong."""

import msgspec
import numpy as np
import onnx
import pytest
from built_files import built, first_samples
from file_readers import onnx_session
from small_networks import Quantized, network
from tiny import CLASSES
from torch import fx

from edgedl.compress.artifacts.build import BuiltArtifact
from edgedl.compress.export.onnx.write import describe_onnx
from edgedl.compress.parity.inner_tensors import GraphIntegers
from edgedl.compress.parity.layers import certify_layers, layers_of, single_samples
from edgedl.compress.pipeline import CompressedModel
from edgedl.compress.state import ModelState
from edgedl.compress.targets.named import ORT
from edgedl.runtime.bundle.certificates import LayerParity
from edgedl.runtime.bundle.layer_vectors import LAYER_VECTORS
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.selfcheck.layers import check_layers

INT8 = ("ort-int8", "tflite-int8", "tensorrt-int8")


def item_of(model: bytes, graph: fx.GraphModule) -> BuiltArtifact:
    artifact = Artifact("ort-int8", "ort", "int8", "f.onnx", *describe_onnx(model), (0.1,))
    return BuiltArtifact(artifact, model, graph, ORT)


def samples_of(net: Quantized, count: int = 4) -> list:
    return list(single_samples([net.arrays], count))


def exposed(model: bytes) -> onnx.ModelProto:
    """Return a model whose quantized tensors are outputs, edited with onnx."""
    loaded = onnx.load_from_string(model)
    for node in loaded.graph.node:
        if node.op_type == "QuantizeLinear":
            value = onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.UINT8, None)
            loaded.graph.output.append(value)
    return loaded


def test_a_certificate_is_what_counting_by_hand_gives() -> None:
    net = network("gated")
    graph, samples = net.emitted(ORT), samples_of(net, 6)
    found = certify_layers(item_of(net.onnx, graph), samples)
    assert (found.samples, found.outputs_differ, found.not_compared) == (6, 0.0, ())
    session = onnx_session(exposed(net.onnx).SerializeToString())
    x = net.arrays[0][:6]
    _, *values = session.run(None, {session.get_inputs()[0].name: x})
    names = [o.name for o in session.get_outputs()][1:]
    by_name = dict(zip(names, values, strict=True))
    expected = GraphIntegers(graph)
    wanted = expected.read((x,))
    zero_points = {t.name: t.zero_point for t in expected.tensors.values()}
    assert [layer.node for layer in found.layers] == list(wanted)
    for layer in found.layers:
        integers = by_name[layer.tensor].astype(int) - zero_points[layer.node]
        error = np.abs(integers - wanted[layer.node])
        assert layer.max_lsb == error.max()
        assert layer.mean_lsb == pytest.approx(error.mean())
        assert layer.differing == pytest.approx((error > 0).mean())
        assert (layer.sqnr_db is None) == (error.max() == 0)
        if layer.sqnr_db is not None:
            power = (wanted[layer.node].astype(float) ** 2).sum() / (error.astype(float) ** 2).sum()
            assert layer.sqnr_db == pytest.approx(10 * np.log10(power))


def test_the_first_layer_that_differs_is_the_one_that_was_changed() -> None:
    net = network("two_heads")
    graph, loaded = net.emitted(ORT), onnx.load_from_string(net.onnx)
    weight = next(t for t in loaded.graph.initializer if t.name == "conv1d_1_weight_int8")
    weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), weight.name))
    model = loaded.SerializeToString()
    found = certify_layers(item_of(model, graph), samples_of(net))
    wrong = [layer for layer in found.layers if layer.mean_lsb > 1]
    paths = layers_of(graph)
    assert wrong[0].node in ("relu_2", "conv1d_1")
    assert paths[wrong[0].node] in ("", "second")
    by_node = {layer.node: layer for layer in found.layers}
    # What does not come after it is as it was.
    assert by_node["conv2d_2"].max_lsb <= 1
    assert found.layers[-1].node != wrong[0].node


@pytest.mark.parametrize("name", INT8)
def test_the_certificate_of_a_bundle_holds_every_tensor(
    compressed: CompressedModel, int8_state: ModelState, name: str
) -> None:
    item = built(compressed, int8_state, name)
    layers = item.artifact.parity.layers
    assert layers.samples == 32
    assert layers.outputs_differ == 0.0
    assert layers.not_read is None
    quantized = set(GraphIntegers(item.graph).read((first_samples(1),)))
    assert {layer.node for layer in layers.layers} | set(layers.not_compared) == quantized
    assert set(layers.not_compared) <= {"flatten_using_ints"}
    of_layer = {layer.node: layer.layer for layer in layers.layers}
    # An activation is named after the convolution it is folded into.
    assert (of_layer["relu6"], of_layer["relu"]) == ("stem", "depthwise")
    assert of_layer.get("linear", "fc") == "fc"
    for layer in layers.layers:
        assert layer.max_lsb <= 1
        assert 0 <= layer.mean_lsb <= layer.differing * layer.max_lsb + 1e-9


def test_the_two_int8_files_are_held_against_each_other(compressed: CompressedModel) -> None:
    (between,) = compressed.bundle.manifest.between
    assert (between.first, between.second) == ("ort-int8", "tflite-int8")
    assert (between.samples, between.layer_samples) == (500, 32)
    assert between.prediction_agreement >= 0.95
    assert between.mean_lsb_error <= 0.5
    by_node: dict[str, LayerParity] = {layer.node: layer for layer in between.layers}
    # Everything before the average pool, which rounds differently, is bit for bit the same.
    assert [by_node[n].max_lsb for n in ("x", "relu6", "relu", "conv2d_2", "cat")] == [0] * 5
    assert all(layer.max_lsb <= 1 for layer in between.layers)
    assert len(CLASSES) == 4


def test_vectors_are_small_and_those_of_the_graph(
    compressed: CompressedModel, int8_state: ModelState
) -> None:
    bundle = compressed.bundle
    with np.load(bundle.folder / "golden.npz") as golden:
        x = golden["input/0"]
    with np.load(bundle.folder / LAYER_VECTORS) as archive:
        assert set(archive) == {"ort-int8", "tflite-int8"}
        vectors = archive["ort-int8"]
    item = built(compressed, int8_state, "ort-int8")
    zero_points = {t.name: t.zero_point for t in GraphIntegers(item.graph).tensors.values()}
    wanted = GraphIntegers(item.graph).read((x,))["linear"] + zero_points["linear"]
    nodes = [layer.node for layer in item.artifact.parity.layers.layers]
    np.testing.assert_array_equal(vectors[nodes.index("linear"), :, :4], wanted)
    assert vectors.dtype == np.uint8
    assert all(d.passed for d in check_layers(bundle, item.artifact))


def test_a_runtime_that_shows_nothing_is_written_down(
    compressed: CompressedModel, int8_state: ModelState, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgedl.compress.parity.graph_outputs import GraphOutputs
    from edgedl.compress.parity.outputs import measure_parity
    from edgedl.runtime.backends.ort import OnnxRuntimeBackend
    from edgedl.runtime.errors import BadInputError

    def refuse(*_: object) -> None:
        raise BadInputError("no tensors to be seen")

    monkeypatch.setattr(OnnxRuntimeBackend, "observe", refuse)
    item = built(compressed, int8_state, "ort-int8")
    outputs = GraphOutputs(int8_state.subject.task, 50)
    parity = measure_parity(int8_state, item, outputs)
    assert parity.layers.layers == ()
    assert parity.layers.not_read == "no tensors to be seen"
    assert msgspec.json.decode(msgspec.json.encode(parity), type=type(parity)) == parity
