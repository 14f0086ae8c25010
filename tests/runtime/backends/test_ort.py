"""ONNX Runtime against ONNX's own reference evaluator, and files it must refuse."""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator
from tiny import make_subject

from edgedl.compress.pipeline import compress
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.targets.named import ORT
from edgedl.runtime.backends.ort import OnnxRuntimeBackend
from edgedl.runtime.errors import BackendUnavailableError, BadInputError


def load(compressed, name="ort-float32", threads=1):
    artifact = compressed.bundle.artifact(name)
    return OnnxRuntimeBackend().load(compressed.bundle.read(artifact.path), artifact, threads)


def reference(compressed, name, images):
    model = onnx.load(compressed.bundle.folder / compressed.bundle.artifact(name).path)
    return ReferenceEvaluator(model).run(None, {model.graph.input[0].name: images})[0]


def test_available_says_the_version():
    availability = OnnxRuntimeBackend().available()
    assert availability.usable
    assert availability.detail == f"onnxruntime {onnxruntime.__version__}"


def test_float_file_against_the_reference_evaluator(compressed, images):
    (found,) = load(compressed).run([images[:2]])
    np.testing.assert_allclose(found, reference(compressed, "ort-float32", images[:2]), atol=1e-5)


def test_int8_file_against_the_reference_evaluator(compressed, images):
    (found,) = load(compressed, "ort-int8").run([images[:2]])
    step = compressed.bundle.artifact("tflite-int8").outputs[0].scale
    difference = np.abs(found - reference(compressed, "ort-int8", images[:2]))
    assert difference.max() <= 1.01 * step
    # Both files share the table: every output value lies on the grid of the TFLite output.
    np.testing.assert_allclose(found / step, np.round(found / step), atol=1e-3)


@pytest.mark.parametrize("name", ["ort-float32", "ort-int8"])
def test_threads_do_not_change_the_answer(compressed, images, name):
    (one,) = load(compressed, name, threads=1).run([images])
    (two,) = load(compressed, name, threads=2).run([images])
    np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.fixture(scope="session")
def integer_weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return compress(make_subject(), load_recipe("weight_only_w8c"), (ORT,), folder)


def operators_that_ran(model: bytes, artifact, images, folder: Path, monkeypatch) -> set[str]:
    """Return the kinds of operators that a profile of the backend's own session names."""
    made, sessions = onnxruntime.InferenceSession, []

    def profiled(content, options, **more):
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        sessions.append(made(content, options, **more))
        return sessions[-1]

    monkeypatch.setattr(onnxruntime, "InferenceSession", profiled)
    OnnxRuntimeBackend().load(model, artifact, 1).run([images[:1]])
    (session,) = sessions
    events = json.loads(Path(session.end_profiling()).read_text())
    return {event["args"]["op_name"] for event in events if "op_name" in event.get("args", {})}


def test_integer_weights_are_converted_when_the_file_is_loaded(
    integer_weights, images, tmp_path, monkeypatch
):
    artifact = integer_weights.bundle.artifact("ort-int8_weights")
    model = integer_weights.bundle.read(artifact.path)
    assert "DequantizeLinear" in {node.op_type for node in onnx.load_from_string(model).graph.node}
    ran = operators_that_ran(model, artifact, images, tmp_path, monkeypatch)
    assert "Conv" in ran
    assert "DequantizeLinear" not in ran


@pytest.mark.parametrize(
    "damage",
    [
        lambda model: b"",
        lambda model: b"not a model",
        lambda model: b"\x00" * 4096,
        lambda model: model[: len(model) // 2],
        lambda model: model[:-1],
        lambda model: model[::-1],
    ],
)
def test_refused_file(refused, compressed, damage):
    artifact = compressed.bundle.artifact("ort-float32")
    model = damage(compressed.bundle.read(artifact.path))
    with refused(BadInputError, artifact.path):
        OnnxRuntimeBackend().load(model, artifact, 1)


def test_nothing_falls_back_in_silence(compressed):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(compressed)


def test_operator_nobody_knows(refused, compressed):
    artifact = compressed.bundle.artifact("ort-float32")
    model = onnx.load_from_string(compressed.bundle.read(artifact.path))
    model.graph.node[0].op_type = "Teleport"
    with refused(BadInputError, "onnxruntime refuses", "Teleport"):
        OnnxRuntimeBackend().load(model.SerializeToString(), artifact, 1)


def test_without_onnxruntime(refused, compressed, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    availability = OnnxRuntimeBackend().available()
    assert not availability.usable
    assert "[ort]'" in availability.detail
    with refused(BackendUnavailableError, "[ort]'"):
        load(compressed)
