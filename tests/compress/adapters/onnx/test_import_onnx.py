"""ONNX files as modules: networks there and back, a batch that the file fixes, files to refuse."""

import copy
import inspect

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgedl.compress.adapters.onnx.import_onnx import check_equal, import_onnx
from edgedl.compress.graph.edit import input_nodes, output_nodes
from edgedl.compress.graph.trace import trace
from edgedl.models.data.datasets import DATASETS
from edgedl.models.reference.pretrained import build
from edgedl.models.reference.table import REFERENCE_MODELS
from edgedl.runtime.errors import BadInputError

MODELS = ("resnet8-cifar10", "mobilenet_v2-cifar10", "efficientnet-cifar10", "googlenet-cifar10",
          "lstm-watch", "gru-watch", "vit-cifar10")  # fmt: skip


def saved(path, nodes, inputs, outputs, stored=(), opset=17, domains=()):
    """Write a file of some nodes."""
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(stored))
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.save(model, path)
    return path


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def weight(name, *shape):
    values = np.random.default_rng(len(name)).normal(size=shape).astype(np.float32)
    return numpy_helper.from_array(values, name)


@pytest.fixture
def linear_file(tmp_path):
    """A file whose inputs and outputs have names that Python does not allow."""
    nodes = [
        helper.make_node("Gemm", ["in.1", "w", "b"], ["h"], name="first", transB=1),
        helper.make_node("Relu", ["h"], ["class"], name="second"),
    ]
    io = [value("in.1", ["N", 3])], [value("class", ["N", 4])]
    return saved(tmp_path / "linear.onnx", nodes, *io, [weight("w", 4, 3), weight("b", 4)])


def test_names_and_weights_are_the_file_s(linear_file):
    network = import_onnx(linear_file)
    assert list(inspect.signature(network.forward).parameters) == ["in_1"]
    assert dict(network.named_parameters()).keys() == {"w", "b"}
    x = torch.randn(5, 3)
    w, b = network.w, network.b
    assert list(network(x)) == ["class_"]
    torch.testing.assert_close(network(x)["class_"], F.relu(F.linear(x, w, b)))
    check_equal(network, linear_file, [x.numpy()])
    graph = trace(network, (x,))
    assert [n.name for n in input_nodes(graph)] == ["in_1"]
    assert [n.name for n in output_nodes(graph)] == ["class_"]


def test_names_that_are_alike_stay_apart(tmp_path):
    nodes = [
        helper.make_node("Add", ["a.b", "a_b"], ["self"]),
        helper.make_node("Sub", ["a.b", "a_b"], ["2"]),
        helper.make_node("Mul", ["a.b", "half"], ["x_2"]),
    ]
    inputs = [value("a.b", ["N", 2]), value("a_b", ["N", 2])]
    outputs = [value(name, ["N", 2]) for name in ("self", "2", "x_2")]
    stored = [numpy_helper.from_array(np.float32(0.5), "half")]
    path = saved(tmp_path / "alike.onnx", nodes, inputs, outputs, stored)
    network = import_onnx(path)
    x, y = torch.randn(3, 2), torch.randn(3, 2)
    found = network(x, y)
    assert list(found) == ["self_", "x_2", "x_2_2"]
    assert torch.equal(found["x_2"], x - y)
    check_equal(network, path, [x.numpy(), y.numpy()])
    # A number of the file is no weight.
    assert not list(network.parameters())


def test_a_copy_has_weights_of_its_own(linear_file):
    network = import_onnx(linear_file)
    other = copy.deepcopy(network)
    with torch.no_grad():
        network.w.zero_()
    x = torch.ones(1, 3)
    assert not torch.equal(network(x)["class_"], other(x)["class_"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["old exporter, batch of 1", "batch of 1", "any batch"])
@pytest.mark.parametrize("name", MODELS)
def test_networks_come_back(tmp_path, name, kind):
    model = REFERENCE_MODELS[name]
    dataset = DATASETS[model.dataset]
    torch.manual_seed(0)
    module = build(model).eval()
    x = torch.rand(2, *dataset.input_shape)
    path = tmp_path / "model.onnx"
    if kind == "any batch":
        shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
        torch.onnx.export(module, (x,), path, dynamic_shapes=shapes, verbose=False)
    else:
        # The usual file of a user.
        old = kind.startswith("old")
        torch.onnx.export(module, (x[:1],), path, dynamo=not old, opset_version=17 if old else None)
    network = import_onnx(path)
    check_equal(network, path, [x.numpy()])
    graph = trace(network, (x,))
    with torch.no_grad():
        found, expected = graph(x), module(x)
    found = found[0] if isinstance(found, tuple) else found
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_batch_of_one_is_freed(tmp_path):
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["rows"]),
        helper.make_node("Concat", ["token", "rows"], ["y"], axis=1),
    ]
    stored = [numpy_helper.from_array(np.array([1, 4, 2]), "shape"), weight("token", 1, 1, 2)]
    path = saved(
        tmp_path / "one.onnx", nodes, [value("x", [1, 8])], [value("y", [1, 5, 2])], stored
    )
    x = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    network = import_onnx(path)
    check_equal(network, path, [x])
    assert network(torch.from_numpy(x))["y"].shape == (3, 5, 2)


def test_weights_beside_the_file(tmp_path, linear_file):
    model = onnx.load(linear_file)
    path = tmp_path / "apart.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    network = import_onnx(path)
    assert torch.equal(network.w, import_onnx(linear_file).w)
    (tmp_path / "weights.bin").rename(tmp_path / "gone.bin")
    with pytest.raises(BadInputError, match=r"'weights\.bin', which is no file beside it"):
        import_onnx(path)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "link.bin"])
def test_weights_elsewhere_are_refused(tmp_path, linear_file, location):
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(1000))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    path = folder / "model.onnx"
    model = onnx.load(linear_file)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = location if entry.key == "location" else entry.value
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BadInputError, match="no file beside it"):
        import_onnx(path)


def test_fused_operators_of_onnx_runtime(tmp_path):
    nodes = [
        helper.make_node("FusedMatMul", ["x", "w"], ["h"], domain="com.microsoft", alpha=0.5),
        helper.make_node("SkipLayerNormalization", ["h", "h", "g", "b"], ["n"],
                         domain="com.microsoft", epsilon=1e-5),
        helper.make_node("BiasGelu", ["n", "b"], ["y"], domain="com.microsoft"),
    ]  # fmt: skip
    stored = [weight("w", 4, 4), weight("g", 4), weight("b", 4)]
    io = [value("x", ["N", 2, 4])], [value("y", ["N", 2, 4])]
    path = saved(tmp_path / "fused.onnx", nodes, *io, stored, domains=["com.microsoft"])
    x = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)
    check_equal(import_onnx(path), path, [x])


def one_node(tmp_path, operator, **rest):
    node = helper.make_node(operator, ["x"], ["y"], name="odd", **rest)
    return saved(tmp_path / "odd.onnx", [node], [value("x", ["N", 4])], [value("y", None)])


@pytest.mark.parametrize(
    ("operator", "attributes", "says"),
    [
        ("NonZero", {}, r"node 'odd' \(NonZero, operator set 17\) is not known"),
        ("ArgMax", {"axis": 1, "select_last_index": 1}, "select_last_index is 1"),
    ],
)
def test_what_is_not_known_is_one_line(tmp_path, operator, attributes, says):
    path = one_node(tmp_path, operator, **attributes)
    with pytest.raises(BadInputError, match=says) as error:
        import_onnx(path)(torch.ones(2, 4))
    assert "\n" not in str(error.value)


def test_quantized_files_go_to_convert(tmp_path):
    node = helper.make_node("QuantizeLinear", ["x", "s"], ["y"], name="q")
    stored = [numpy_helper.from_array(np.float32(0.1), "s")]
    io = [value("x", ["N", 4])], [value("y", ["N", 4], TensorProto.UINT8)]
    path = saved(tmp_path / "q.onnx", [node], *io, stored)
    with pytest.raises(BadInputError, match="edgedl convert"):
        import_onnx(path)


def test_files_that_are_none(tmp_path, linear_file):
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(linear_file.read_bytes()[:-40])
    with pytest.raises(BadInputError, match="is not a whole ONNX model"):
        import_onnx(bad)
    with pytest.raises(BadInputError, match="there is no file"):
        import_onnx(tmp_path / "none.onnx")
    model = onnx.load(linear_file)
    model.opset_import[0].version = 5
    onnx.save(model, bad)
    with pytest.raises(BadInputError, match=r"operator set 5|not a whole ONNX model"):
        import_onnx(bad)
    model.opset_import[0].version = 17
    model.graph.node[0].input[0] = "class"
    bad.write_bytes(model.SerializeToString())
    with pytest.raises(BadInputError, match="is not a whole ONNX model"):
        import_onnx(bad)


def test_the_first_node_that_differs_is_named(linear_file):
    network = import_onnx(linear_file)
    with torch.no_grad():
        network.w[0, 0] += 1
    x = np.ones((2, 3), np.float32) * 100
    with pytest.raises(BadInputError, match=r"the first node that differs is 'first' \(Gemm\)"):
        check_equal(network, linear_file, [x])


def test_it_can_be_trained(linear_file):
    network = nn.Sequential(import_onnx(linear_file)).train()
    loss = network(torch.ones(2, 3))["class_"].sum()
    loss.backward()
    assert network[0].w.grad is not None
