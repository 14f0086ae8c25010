"""Layers of ONNX files that other tools wrote."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from command import Run
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    quantize_dynamic,
    quantize_static,
)
from tiny import make_subject
from torch import Tensor, nn

from edgedl.compress.export.onnx.write import to_onnx
from edgedl.compress.graph.run import count_macs
from edgedl.compress.graph.trace import trace
from edgedl.compress.modelfile.align import align
from edgedl.compress.modelfile.layer import FileLayer
from edgedl.compress.modelfile.read import read_layers
from edgedl.compress.pipeline import CompressedModel
from edgedl.runtime.runner import Runner
from edgedl.tools.bench.loose_file import precision_of


class Calibration(CalibrationDataReader):
    def __init__(self, name: str, x: np.ndarray) -> None:
        self._batches = iter([{name: x[i : i + 1]} for i in range(len(x))])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


@pytest.fixture(scope="module")
def quantized(compressed: CompressedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one network in ONNX Runtime's two formats."""
    folder = tmp_path_factory.mktemp("elsewhere")
    source = compressed.bundle.folder / "float32.onnx"
    x = np.random.default_rng(1).normal(size=(16, 3, 12, 12)).astype(np.float32)
    name = onnx.load(source).graph.input[0].name
    for form in QuantFormat:
        made = folder / f"{form}.onnx"
        reader = Calibration(name, x)
        quantize_static(source, made, reader, quant_format=form, per_channel=True)
    return folder


def layers(path: Path) -> list[FileLayer]:
    return read_layers(path.read_bytes(), path.name)


def test_operators_on_integers_are_read_as_pairs_are(
    compressed: CompressedModel, quantized: Path
) -> None:
    whole = sum(layer.macs for layer in layers(compressed.bundle.folder / "float32.onnx"))
    pairs, integers = (layers(quantized / f"{form}.onnx") for form in ("QDQ", "QOperator"))
    for found in (pairs, integers):
        assert sum(layer.macs for layer in found) == whole
        weighted = [layer for layer in found if layer.macs]
        assert len(weighted) == 5
        assert all(layer.weight and layer.output and layer.shape for layer in weighted)
        assert {layer.inputs for layer in weighted} <= {"int8", "uint8"}
    same = [m for m in align(pairs, integers) if m.first and m.second and m.first.macs]
    assert [m.first.weight for m in same] == [m.second.weight for m in same]
    assert [m.first.output for m in same] == [m.second.output for m in same]
    assert len(same) == 5


def test_constants_may_be_nodes(quantized: Path) -> None:
    model = onnx.load(quantized / "QDQ.onnx")
    stored = [helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    nodes = [*stored, *model.graph.node]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    assert read_layers(model.SerializeToString(), "f.onnx") == layers(quantized / "QDQ.onnx")


def test_rows_folded_into_the_batch_are_counted() -> None:
    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x.reshape(-1, 4)).relu().reshape(x.shape[0], -1)

    net, x = Folded().eval(), torch.zeros(2, 5, 4)
    found = read_layers(to_onnx(trace(net, (x,)), (x,)), "f.onnx")
    assert sum(layer.macs for layer in found) == count_macs(net, (x[:1],)) == 5 * 4 * 6
    assert found[-1].shape[0] is None


def test_a_product_with_a_vector_is_counted() -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "v"], ["y"], "product")],
        "vector",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])],
        [numpy_helper.from_array(np.ones(8, np.float32), "v")],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    (found,) = read_layers(model.SerializeToString(), "f.onnx")
    assert found.macs == 8


@pytest.mark.parametrize("per_channel", [True, False])
def test_weights_of_dynamic_products_have_their_grid(tmp_path: Path, per_channel: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 4))
    x = (torch.zeros(2, 6),)
    content = to_onnx(trace(net.eval(), x), x)
    (tmp_path / "float.onnx").write_bytes(content)
    quantize_dynamic(
        tmp_path / "float.onnx",
        tmp_path / "int8.onnx",
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=per_channel,
    )
    found = [la for la in layers(tmp_path / "int8.onnx") if la.operator == "MatMulInteger"]
    for layer, module in zip(found, (net[0], net[2]), strict=True):
        assert isinstance(module, nn.Linear)
        grid = layer.weight
        assert grid is not None
        assert grid.dtype == "int8"
        largest = module.weight.detach().abs().amax(1 if per_channel else (0, 1)).reshape(-1)
        np.testing.assert_allclose(grid.scales, 2 * largest / 255, rtol=0.01)


def test_integers_read_by_a_layer_with_float_weights_are_floats_to_it() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("ConvTranspose", ["d", "w"], ["y"], "up"),
    ]
    constants = {
        "s": np.float32(0.1),
        "z": np.uint8(7),
        "w": np.ones((2, 3, 2, 2), np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "up",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, 5, 5])],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    (found,) = read_layers(model.SerializeToString(), "f.onnx")
    assert (found.inputs, found.weight, found.macs) == ("float32", None, 32 * 12)


@pytest.mark.slow
def test_a_file_is_measured_as_a_bundle_is(
    edgedl: Run, compressed: CompressedModel, quantized: Path, tmp_path: Path
) -> None:
    task = tmp_path / "mine.py"
    task.write_text("from tiny import make_subject\n\ndef subject():\n    return make_subject()\n")
    files = [compressed.bundle.folder / "float32.onnx", quantized / "QDQ.onnx"]
    files.append(compressed.bundle.folder / "int8.tflite")
    options = ["--threads", "1", "--out", tmp_path / "out"]
    refused = edgedl("bench", *files, *options)
    assert refused.returncode == 2
    assert "does not say what data it is for: give --task" in refused.stderr
    done = edgedl("bench", *files, *options, "--task", f"{task}:subject")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "result.json").read_text())
    assert found["baseline"] == "float32.onnx:ort-float32"
    names = [candidate["name"] for candidate in found["candidates"]]
    assert names == ["float32.onnx:ort-float32", "QDQ.onnx:ort-int8", "int8.tflite:tflite-int8"]
    whole = {a.name: a for a in compressed.bundle.manifest.artifacts}
    with Runner(compressed.bundle, whole["ort-float32"]) as runner:
        subject = make_subject()
        (batch,) = subject.task.batches("test", 1000)
        expected = subject.task.score(runner(*batch.inputs), batch.labels).mean()
    assert found["candidates"][0]["score"]["value"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("float32.onnx", "float32"),
        ("float16.tflite", "float32"),
        ("int8.ort.onnx", "int8"),
        ("int8.tflite", "int8"),
    ],
)
def test_the_precision_of_a_file_is_told(
    compressed: CompressedModel, name: str, precision: str
) -> None:
    backend = "tflite" if name.endswith("tflite") else "ort"
    assert precision_of(layers(compressed.bundle.folder / name), backend).name == precision


@pytest.mark.parametrize("name", ["float32.onnx", "int8.ort.onnx"])
@pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED"])
def test_files_that_onnx_runtime_has_optimized_are_counted(
    compressed: CompressedModel, tmp_path: Path, name: str, level: str
) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(tmp_path / "f.onnx")
    source = compressed.bundle.folder / name
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    whole = sum(layer.macs or 0 for layer in layers(compressed.bundle.folder / "float32.onnx"))
    found = layers(tmp_path / "f.onnx")
    assert all(layer.macs is not None for layer in found)
    assert sum(layer.macs or 0 for layer in found) == whole


@pytest.mark.slow
def test_recurrent_layers_of_the_dynamic_quantizer_are_counted(tmp_path: Path) -> None:
    torch.manual_seed(0)

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(5, 8, batch_first=True, bidirectional=True)
            self.fc = nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.lstm(x)[0])

    net, x = Reader().eval(), (torch.zeros(2, 7, 5),)
    (tmp_path / "float.onnx").write_bytes(to_onnx(trace(net, x), x))
    quantize_dynamic(tmp_path / "float.onnx", tmp_path / "int8.onnx")
    # Two directions of four gates.
    expected = 7 * 2 * 4 * 8 * (5 + 8) + 7 * 16 * 3
    for name in ("float.onnx", "int8.onnx"):
        found = layers(tmp_path / name)
        assert sum(layer.macs or 0 for layer in found) == expected
        assert all(layer.macs is not None for layer in found)
