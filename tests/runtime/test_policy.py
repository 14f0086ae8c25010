"""What happens where a wanted file cannot run, or something else computes a part of it."""

import flatbuffers
import numpy as np
import onnxruntime
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgedl.runtime import gpu
from edgedl.runtime.backends.ort import CUDA, OnnxRuntimeBackend
from edgedl.runtime.backends.runtimes import open_backend
from edgedl.runtime.backends.tflite import LiteRTBackend
from edgedl.runtime.bundle.manifest import Artifact, TensorSpec
from edgedl.runtime.errors import BackendUnavailableError, BadInputError, IntegrityError
from edgedl.runtime.placement import Fallback
from edgedl.runtime.runner import Runner
from edgedl.runtime.supervised import SupervisedRunner

# It is in every build for the CPU, and takes none of our operators: all of them fall back.
OTHER = "AzureExecutionProvider"


def recommend_tensorrt(manifest):
    manifest.update(recommended="tensorrt-int8")


def test_the_next_best_says_why_it_runs(bundle_copy, edit_manifest, images):
    edit_manifest(recommend_tensorrt)
    with Runner.open(bundle_copy) as runner:
        assert runner.artifact.name == "ort-float32"
        assert runner.instead.startswith("tensorrt-int8 cannot run on TensorRT: ")
        assert np.isfinite(runner(images)[0]).all()
    with Runner.open(bundle_copy, policy="any") as runner:
        assert (runner.artifact.name, runner.instead) == ("ort-float32", "")
    with SupervisedRunner(bundle_copy) as runner:
        assert runner.health().instead.startswith("tensorrt-int8 cannot run")


def test_what_is_required_runs_or_nothing_does(refused, bundle_copy, edit_manifest):
    edit_manifest(recommend_tensorrt)
    with refused(BackendUnavailableError, "TensorRT"):
        Runner.open(bundle_copy, policy="require")
    with refused(BackendUnavailableError, "TensorRT"):
        SupervisedRunner(bundle_copy, policy="require")


@pytest.mark.parametrize("asked", [{"artifact": "tensorrt-int8"}, {"backend": "tensorrt"}])
def test_a_preferred_file_or_backend_may_be_another(bundle_copy, asked):
    with Runner.open(bundle_copy, **asked, policy="prefer") as runner:
        assert runner.artifact.backend == "ort"
        assert "cannot run on TensorRT" in runner.instead
    with Runner.open(bundle_copy, artifact="tflite-int8", policy="prefer") as runner:
        assert (runner.artifact.name, runner.instead) == ("tflite-int8", "")


def test_a_preferred_backend_that_the_bundle_has_no_file_for(refused, bundle_copy, edit_manifest):
    def without_tensorrt(manifest):
        manifest["artifacts"] = [a for a in manifest["artifacts"] if a["backend"] != "tensorrt"]

    edit_manifest(without_tensorrt)
    with Runner.open(bundle_copy, backend="tensorrt", policy="prefer") as runner:
        assert runner.artifact.name == "ort-float32"
        assert "has no artifact for the backend 'tensorrt'" in runner.instead
    with refused(BadInputError, "has no artifact for the backend 'tensorrt'"):
        Runner.open(bundle_copy, backend="tensorrt")


def test_a_file_that_its_runtime_refuses_is_no_end(refused, bundle_copy, replace_file):
    replace_file("int8.tflite", b"TFL3 and nothing else")
    with Runner.open(bundle_copy, "tflite-int8", policy="prefer") as runner:
        assert runner.artifact.name != "tflite-int8"
        assert "LiteRT refuses int8.tflite" in runner.instead
    with refused(BadInputError, "LiteRT refuses"):
        Runner.open(bundle_copy, "tflite-int8")


def test_a_damaged_file_is_an_end(refused, bundle_copy):
    (bundle_copy / "int8.tflite").write_bytes(b"something else")
    with refused(IntegrityError, "int8.tflite"):
        Runner.open(bundle_copy, "tflite-int8", policy="any")


def test_a_policy_that_there_is_not(refused, compressed):
    with refused(BadInputError, "'prefre'", "did you mean 'prefer'"):
        Runner.open(compressed.bundle.folder, policy="prefre")


@pytest.mark.parametrize("name", ["ort-float32", "tflite-float32"])
def test_nothing_falls_back_on_the_cpu(compressed, name):
    with Runner.open(compressed.bundle.folder, name) as runner:
        assert runner.placement.device == "the CPU"
        assert runner.placement.fallbacks == ()


def test_operators_that_a_provider_leaves_to_the_cpu_are_named(refused, compressed, images):
    folder, backend = compressed.bundle.folder, OnnxRuntimeBackend(OTHER)
    with refused(BackendUnavailableError, f"does not run on {OTHER} alone", "Conv", "'prefer'"):
        Runner.open(folder, "ort-float32", backend)
    usual = Runner.open(folder, "ort-float32")
    with usual, Runner.open(folder, "ort-float32", backend, policy="prefer") as runner:
        (fallback,) = runner.placement.elsewhere
        assert fallback.by == "the CPU"
        kinds = [kind for kind, _ in fallback.operators]
        assert "Conv" in kinds
        assert all(name for _, name in fallback.operators)
        assert runner.placement.device == OTHER
        np.testing.assert_array_equal(runner(images)[0], usual(images)[0])


def test_an_old_onnxruntime_that_does_not_say_it(refused, compressed, monkeypatch):
    base = onnxruntime.InferenceSession.__mro__[1]
    monkeypatch.delattr(base, "get_provider_graph_assignment_info")
    with refused(BackendUnavailableError, "does not say which operators", "newer"):
        Runner.open(compressed.bundle.folder, "ort-float32", OnnxRuntimeBackend(OTHER))


def test_a_provider_that_is_not_in_the_build(compressed):
    assert CUDA not in onnxruntime.get_available_providers()
    backend = open_backend("ort_cuda")
    assert not backend.available().usable
    assert "pip install onnxruntime-gpu" in backend.available().detail


def test_a_provider_that_cannot_be_made_is_no_cpu(refused, compressed, monkeypatch):
    """A build without CUDA, where everything claims that there is a GPU."""
    from edgedl.runtime.backends import ort

    monkeypatch.setattr(ort, "find_gpu", lambda: gpu.Gpu("a GPU", "8.7", "CUDA 12.6"))
    artifact = compressed.bundle.artifact("ort-float32")
    content = compressed.bundle.read(artifact.path)
    with refused(BackendUnavailableError, "cannot use CUDAExecutionProvider", "CPUExecution"):
        OnnxRuntimeBackend(CUDA).load(content, artifact, 1)


def two_operators(first: int, second: int) -> bytes:
    """Return a TFLite file of two operators, one behind the other, on four numbers."""
    model = schema.ModelT()
    model.version = 3
    model.buffers = [schema.BufferT()]
    model.operatorCodes = []
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = [], []
    for name in ("x", "between", "y"):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, [1, 4], 0, 0
        graph.tensors.append(tensor)
    for index, code in enumerate((first, second)):
        kind = schema.OperatorCodeT()
        kind.builtinCode = kind.deprecatedBuiltinCode = code
        kind.version = 1
        model.operatorCodes.append(kind)
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = index, [index], [index + 1]
        graph.operators.append(operator)
    graph.inputs, graph.outputs = [0], [2]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_an_average_of_integers_is_none_of_xnnpacks(compressed):
    with Runner.open(compressed.bundle.folder, "tflite-int8") as runner:
        (fallback,) = runner.placement.fallbacks
        assert [kind for kind, _ in fallback.operators] == ["AVERAGE_POOL_2D"]


@pytest.mark.parametrize("own_first", [False, True])
def test_operators_that_xnnpack_does_not_take_are_counted(own_first):
    codes = [schema.BuiltinOperator.ABS, schema.BuiltinOperator.ZEROS_LIKE]
    if own_first:
        codes.reverse()
    x, y = TensorSpec("x", (1, 4), "float32"), TensorSpec("y", (1, 4), "float32")
    artifact = Artifact("two", "tflite", "float32", "two.tflite", (x,), (y,), (1e-6,))
    session = LiteRTBackend().load(two_operators(*codes), artifact, 1)
    (fallback,) = session.placement().fallbacks
    assert fallback == Fallback(
        "the interpreter's own kernels", (("ZEROS_LIKE", ""),), other_device=False
    )
    assert str(fallback) == (
        "1 operator is computed by the interpreter's own kernels: 1 ZEROS_LIKE"
    )
    assert session.placement().elsewhere == ()
    session.close()
    assert session.placement().fallbacks == ()


def test_layers_that_the_dla_does_not_take_are_named():
    from edgedl.runtime.backends.engines import placement_of
    from edgedl.runtime.tensorrt.build import Built

    orin = gpu.Gpu("Orin", "8.7", "CUDA 12.6")
    assert placement_of(orin, Built(b"engine")).elsewhere == ()
    (fallback,) = placement_of(orin, Built(b"engine", on_gpu=("softmax", "resize"))).elsewhere
    assert str(fallback) == "2 operators are computed by the GPU (softmax, resize)"
