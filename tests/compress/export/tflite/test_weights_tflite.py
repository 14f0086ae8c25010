"""Integer weights in TFLite files: to the bit as in the table, float32 on every kernel."""

from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from file_readers import TFLiteFile
from weight_networks import weights

from edgedl.compress.artifacts.build import ArtifactBuilder
from edgedl.compress.errors import ExportError
from edgedl.compress.export.tflite.weights import weights_for_tflite
from edgedl.compress.quantize.weight_only import QuantizeWeights
from edgedl.compress.state import begin
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import TFLITE
from edgedl.models.bert import SentenceEncoder
from edgedl.runtime.task.task import ArrayTask, Samples

FILES = ["tokens_w4g32", "tokens_w8c", "pictures_w8c"]
INTEGERS = {schema.TensorType.INT4: 4, schema.TensorType.INT8: 8}


class Read:
    """What a TFLite file holds, by the generated reader."""

    def __init__(self, content: bytes) -> None:
        self.model: Any = schema.ModelT.InitFromPackedBuf(content, 0)
        self.graph = self.model.subgraphs[0]

    def content(self, index: int) -> bytes:
        return bytes(self.model.buffers[self.graph.tensors[index].buffer].data)

    def weights(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return integers as they are stored, and the scale of each one."""
        found = []
        for operator in self.graph.operators:
            source = int(operator.inputs[0])
            tensor = self.graph.tensors[source]
            if tensor.type not in INTEGERS:
                continue
            integers = self._integers(source, INTEGERS[tensor.type])
            grid = tensor.quantization
            assert not np.any(grid.zeroPoint)
            shape = [1] * integers.ndim
            shape[grid.quantizedDimension] = -1
            scales = np.broadcast_to(np.reshape(grid.scale, shape), integers.shape)
            factor = self._factor(int(operator.outputs[0]))
            found.append((integers, scales * factor if factor is not None else scales))
        return found

    def _integers(self, index: int, bits: int) -> np.ndarray:
        values = np.frombuffer(self.content(index), np.int8)
        if bits == 4:
            values = np.stack([(values << 4) >> 4, values >> 4], -1).ravel()
        shape = [int(d) for d in self.graph.tensors[index].shape]
        return values[: int(np.prod(shape))].reshape(shape)

    def _factor(self, result: int) -> np.ndarray | None:
        for operator in self.graph.operators:
            if int(operator.inputs[0]) == result and len(operator.inputs) == 2:
                other = int(operator.inputs[1])
                tensor = self.graph.tensors[other]
                if self.model.buffers[tensor.buffer].data is not None and len(tensor.shape) == 3:
                    values = np.frombuffer(self.content(other), np.float32)
                    return values.reshape([int(d) for d in tensor.shape])
        return None


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_the_tables_integers_and_scales_are_in_the_file(name: str) -> None:
    net = weights(name)
    read = Read(net.file(TFLITE)).weights()
    found = {(np.sort(q, axis=None).tobytes(), np.sort(s, axis=None).tobytes()) for q, s in read}
    for path, weight in net.network.weights.items():
        integers = weight.integers.numpy()
        size = integers[0].size // weight.scales.shape[1]
        scales = np.repeat(weight.scales.numpy(), size, axis=1)
        key = (np.sort(integers, axis=None).tobytes(), np.sort(scales, axis=None).tobytes())
        assert key in found, path


@pytest.mark.slow
def test_linear_weights_are_stored_in_order() -> None:
    net = weights("tokens_w4g32")
    read = Read(net.file(TFLITE)).weights()
    linear = {p: w for p, w in net.network.weights.items() if w.integers.ndim == 2}
    assert len(linear) == 6
    for path, weight in linear.items():
        rows = weight.integers.numpy()
        steps = np.repeat(weight.scales.numpy(), weight.group_size, axis=1)
        assert any(
            np.array_equal(q.ravel(), rows.ravel()) and np.array_equal(s.ravel(), steps.ravel())
            for q, s in read
        ), path


@pytest.mark.slow
@pytest.mark.parametrize("xnnpack", [True, False])
@pytest.mark.parametrize("name", FILES)
def test_every_kernel_computes_what_the_dequantized_graph_computes(
    name: str, xnnpack: bool
) -> None:
    net = weights(name)
    file = TFLiteFile(net.file(TFLITE), xnnpack)
    x = net.x.astype(file.inputs[0]["dtype"])
    if x.ndim == 4:
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    for a, b in zip(file.run((x,)), net.expected(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_constants_begin_where_vector_instructions_can_read_them(name: str) -> None:
    content = net_file = weights(name).file(TFLITE)
    model = schema.Model.GetRootAs(content, 0)
    start = np.frombuffer(net_file, np.uint8).__array_interface__["data"][0]
    for index in range(model.BuffersLength()):
        data = model.Buffers(index).DataAsNumpy()
        if isinstance(data, np.ndarray) and data.size:
            assert (data.__array_interface__["data"][0] - start) % 16 == 0


def test_float_weights_are_gone() -> None:
    net = weights("tokens_w8c")
    whole = sum(w.integers.numel() for w in net.network.weights.values())
    assert len(net.file(TFLITE)) < 1.5 * whole


def test_a_weight_that_is_not_in_the_file_is_refused_by_name() -> None:
    net, other = weights("tokens_w8c"), weights("tokens_w4g32")
    with pytest.raises(ExportError, match=r"rewrote the weight '.*_dequantized'.*keep_float"):
        weights_for_tflite(net.file(TFLITE), other.network.weights)


@pytest.mark.slow
@pytest.mark.parametrize("xnnpack", [True, False])
@pytest.mark.parametrize(("bits", "group"), [(8, None), (4, 32)])
def test_what_the_converter_folds_into_weights_is_undone(
    bits: int, group: int | None, xnnpack: bool
) -> None:
    torch.manual_seed(0)
    net = SentenceEncoder(width=96, layers=1, feed_forward=128).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter.normal_(1.0, 0.2)
    ids = np.random.default_rng(0).integers(1, 1000, (4, 16))
    samples = Samples((ids, np.ones_like(ids)), np.zeros(4))
    task = ArrayTask(
        name="ids",
        splits=dict.fromkeys(("calibration", "test"), lambda: samples),
        metric="nothing",
        score_samples=lambda outputs, labels: np.zeros(len(labels)),
    )
    subject = Subject("sentences", net, task)
    state = begin(subject)
    state = QuantizeWeights(bits, group).apply(state)
    assert state.weights is not None
    _, content = ArtifactBuilder(state).file(TFLITE, state.precisions[-1])
    assert len(Read(content).weights()) == len(state.weights.weights)
    names = [bytes(t.name).decode() for t in Read(content).graph.tensors]
    assert any(name.endswith("_columns") for name in names)
    file = TFLiteFile(content, xnnpack)
    one = tuple(x[:1].astype(i["dtype"]) for x, i in zip(samples.inputs, file.inputs, strict=True))
    (found,) = file.run(one)
    (expected,) = state.weights.graph(*(torch.from_numpy(x[:1]) for x in samples.inputs))
    np.testing.assert_allclose(found, expected.detach().numpy()[None], atol=1e-6)
