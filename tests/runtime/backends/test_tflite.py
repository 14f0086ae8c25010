"""LiteRT against ONNX Runtime on the same network, and files it must refuse."""

import sys
from importlib.metadata import version

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgedl.runtime.backends.ort import OnnxRuntimeBackend
from edgedl.runtime.backends.tflite import LiteRTBackend
from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.tensors import decode, encode


def load(compressed, name, threads=1):
    backend = LiteRTBackend() if name.startswith("tflite") else OnnxRuntimeBackend()
    artifact = compressed.bundle.artifact(name)
    return backend.load(compressed.bundle.read(artifact.path), artifact, threads), artifact


def run(compressed, name, images, threads=1):
    """Run pictures one by one; return float32 outputs."""
    session, artifact = load(compressed, name, threads)
    outputs = [
        session.run([encode(images[i : i + 1], artifact.inputs[0])])[0] for i in range(len(images))
    ]
    return decode(np.concatenate(outputs), artifact.outputs[0])


def test_available_says_the_version():
    availability = LiteRTBackend().available()
    assert availability.usable
    assert availability.detail == f"ai-edge-litert {version('ai-edge-litert')}"


def test_float_file_is_onnx_runtimes(compressed, images):
    found = run(compressed, "tflite-float32", images)
    np.testing.assert_allclose(found, run(compressed, "ort-float32", images), atol=1e-5)


def test_integer_file_is_onnx_runtimes_within_one_step(compressed, images):
    found = run(compressed, "tflite-int8", images)
    other = run(compressed, "ort-int8", images)
    step = compressed.bundle.artifact("tflite-int8").outputs[0].scale
    steps = np.round((found - other) / step)
    np.testing.assert_allclose(found - other, steps * step, atol=1e-3 * step)
    assert np.abs(steps).max() <= 1
    assert np.mean(steps == 0) > 0.6


@pytest.mark.parametrize("name", ["tflite-float32", "tflite-int8"])
def test_threads_do_not_change_the_answer(compressed, images, name):
    one, two = (run(compressed, name, images[:3], threads) for threads in (1, 2))
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_specification_is_the_files_own(compressed):
    session, artifact = load(compressed, "tflite-int8")
    (output,) = session.run([np.zeros((1, 12, 12, 3), np.int8)])
    assert output.dtype == artifact.outputs[0].dtype == "int8"
    assert output.shape == artifact.outputs[0].shape == (1, 4)


@pytest.mark.parametrize(
    "damage",
    [
        lambda model: b"",
        lambda model: b"not a model",
        lambda model: b"\x00" * 4096,
        lambda model: model[: len(model) // 2],
        lambda model: model[::-1],
    ],
)
def test_refused_file(refused, compressed, damage):
    artifact = compressed.bundle.artifact("tflite-float32")
    model = damage(compressed.bundle.read(artifact.path))
    with refused(BadInputError, "LiteRT refuses", artifact.path):
        LiteRTBackend().load(model, artifact, 1)


def test_graph_that_makes_no_sense(compressed):
    artifact = compressed.bundle.artifact("tflite-float32")
    model = schema.ModelT.InitFromPackedBuf(bytearray(compressed.bundle.read(artifact.path)))
    model.subgraphs[0].operators[0].outputs = np.array([10_000], np.int32)
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    with pytest.raises(BadInputError, match=r"LiteRT refuses float32\.tflite: .*10000"):
        LiteRTBackend().load(bytes(builder.Output()), artifact, 1)


def test_tensors_of_another_file(refused, compressed):
    wrong = compressed.bundle.artifact("ort-float32")
    model = compressed.bundle.read("float32.tflite")
    with refused(BadInputError, "LiteRT refuses"):
        LiteRTBackend().load(model, wrong, 1)


def test_without_litert(refused, compressed, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    availability = LiteRTBackend().available()
    assert not availability.usable
    assert "[tflite]'" in availability.detail
    with refused(BackendUnavailableError, "[tflite]'"):
        load(compressed, "tflite-int8")
