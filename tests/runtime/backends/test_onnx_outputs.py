"""Outputs appended to a file's bytes, against a model edited with onnx."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedl.compress.pipeline import CompressedModel
from edgedl.runtime.backends.onnx_outputs import with_outputs
from edgedl.runtime.backends.ort import OnnxRuntimeBackend
from edgedl.runtime.backends.tflite import LiteRTBackend
from edgedl.runtime.errors import BadInputError


@given(st.lists(st.text("az_/.0é", min_size=1, max_size=300), max_size=40))
def test_onnx_reads_what_was_appended(names: list[str]) -> None:
    graph = onnx.helper.make_graph([], "g", [], [onnx.ValueInfoProto(name="own")])
    model = onnx.helper.make_model(graph, producer_name="p")
    found = onnx.load_from_string(with_outputs(model.SerializeToString(), names))
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    assert found == model


@pytest.mark.parametrize(
    ("name", "backend"), [("ort-int8", OnnxRuntimeBackend()), ("tflite-int8", LiteRTBackend())]
)
def test_an_observed_run_gives_the_outputs_and_the_tensors(
    compressed: CompressedModel, name: str, backend: OnnxRuntimeBackend | LiteRTBackend
) -> None:
    artifact = compressed.bundle.artifact(name)
    content = compressed.bundle.read(artifact.path)
    tensors = [layer.tensor for layer in artifact.parity.layers.layers]
    spec = artifact.inputs[0]
    shape = [d or 1 for d in spec.shape]
    x = np.random.default_rng(0).integers(-100, 100, shape).astype(spec.dtype)
    shipped = backend.load(content, artifact, 1).run([x])
    output, *inner = backend.observe(content, artifact, tensors).run([x])
    np.testing.assert_array_equal(output, shipped[0])
    assert len(inner) == len(tensors)
    assert all(value.dtype.itemsize == 1 and len(value) == 1 for value in inner)
    # The first tensor is the input, the last the output, as integers.
    assert inner[0].size == x.size
    assert inner[-1].size == output.size
    with pytest.raises(BadInputError):
        backend.observe(content, artifact, ["no such tensor"])
