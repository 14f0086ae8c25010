"""The runner against the torch network and the bare runtimes, and every input it must refuse."""

import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_net

from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.manifest import TensorSpec
from edgedl.runtime.errors import BackendUnavailableError, BadInputError, IntegrityError
from edgedl.runtime.loaded_model import UnusualInputWarning
from edgedl.runtime.runner import Runner
from edgedl.runtime.tensors import decode, encode

RUNNABLE = tuple(f"{b}-{p}" for b in ("ort", "tflite") for p in ("float32", "float16", "int8"))


@pytest.fixture(scope="module")
def runners(compressed):
    bundle = compressed.bundle
    return {name: Runner(bundle, bundle.artifact(name)) for name in RUNNABLE}


@pytest.mark.parametrize("name", ["ort-float32", "tflite-float32"])
def test_float_files_compute_what_torch_does(runners, images, name):
    with torch.no_grad():
        expected = make_net()(torch.from_numpy(images)).numpy()
    (found,) = runners[name](images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["ort-float16", "ort-int8", "tflite-float16", "tflite-int8"])
def test_small_files_are_near_torch(runners, images, name):
    with torch.no_grad():
        expected = make_net()(torch.from_numpy(images)).numpy()
    (found,) = runners[name](images)
    span = expected.max() - expected.min()
    assert 0 < np.abs(found - expected).max() < (0.002 if "float16" in name else 0.05) * span


@pytest.mark.parametrize("name", ["ort-float32", "ort-float16", "ort-int8"])
def test_onnx_files_against_bare_onnxruntime(compressed, runners, images, name):
    path = compressed.bundle.folder / compressed.bundle.artifact(name).path
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {session.get_inputs()[0].name: images})
    np.testing.assert_allclose(runners[name](images)[0], expected, atol=1e-6)


def test_int8_tflite_against_the_bare_interpreter(compressed, runners, images):
    interpreter = Interpreter(model_path=str(compressed.bundle.folder / "int8.tflite"))
    interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    (sink,) = interpreter.get_output_details()
    expected = []
    for image in images:
        scale, zero_point = source["quantization"]
        pixels = image.transpose(1, 2, 0)[None]
        steps = np.clip(np.round(pixels / scale) + zero_point, -128, 127)
        interpreter.set_tensor(source["index"], steps.astype(np.int8))
        interpreter.invoke()
        scale, zero_point = sink["quantization"]
        expected.append((interpreter.get_tensor(sink["index"])[0] - float(zero_point)) * scale)
    np.testing.assert_allclose(runners["tflite-int8"](images)[0], expected, atol=1e-6)


@pytest.mark.parametrize("name", RUNNABLE)
def test_batch_is_the_same_as_one_by_one(runners, images, name):
    run = runners[name]
    (whole,) = run(images)
    assert whole.shape == (8, 4)
    single = np.concatenate([run(images[i : i + 1])[0] for i in range(8)])
    np.testing.assert_allclose(whole, single, atol=1e-6)
    (part,) = run(images[2:5])
    np.testing.assert_allclose(part, whole[2:5], atol=1e-6)


@pytest.mark.parametrize("name", RUNNABLE)
def test_results_belong_to_the_caller(runners, images, name):
    run = runners[name]
    given_images = images.copy()
    (first,) = run(given_images[:1])
    kept = first.copy()
    run(given_images[1:2])
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(given_images, images)


def test_inputs_in_any_memory_order(runners, images):
    strided = np.asfortranarray(np.repeat(images, 2, axis=3))[..., ::2]
    for run in runners.values():
        np.testing.assert_allclose(run(strided)[0], run(images)[0], atol=1e-6)


def with_value(value):
    x = np.zeros((2, 3, 12, 12), np.float32)
    x[1, 2, 3, 4] = value
    return x


@pytest.mark.parametrize("name", ["ort-int8", "tflite-int8"])
@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ((with_value(np.nan),), ("'x'", "not finite")),
        ((with_value(np.inf),), ("'x'", "not finite")),
        ((with_value(-np.inf),), ("'x'", "not finite")),
        ((np.zeros((3, 12, 12), np.float32),), ("[N, 3, 12, 12]", "[3, 12, 12]")),
        ((np.zeros((1, 12, 12, 3), np.float32),), ("[N, 3, 12, 12]", "[1, 12, 12, 3]")),
        ((np.zeros((1, 1, 12, 12), np.float32),), ("[N, 3, 12, 12]",)),
        ((np.zeros((1, 3, 13, 12), np.float32),), ("[N, 3, 12, 12]",)),
        ((np.zeros((1, 1, 3, 12, 12), np.float32),), ("[N, 3, 12, 12]",)),
        ((np.zeros((0, 3, 12, 12), np.float32),), ("[0, 3, 12, 12]",)),
        ((np.float32(1),), ("[]",)),
        ((np.zeros((1, 3, 12, 12), np.float64),), ("float32", "float64")),
        ((np.zeros((1, 3, 12, 12), np.uint8),), ("float32", "uint8")),
        ((np.zeros((1, 3, 12, 12), object),), ("float32", "object")),
        ((), ("takes 1", "got 0")),
        ((with_value(0), with_value(0)), ("takes 1", "got 2")),
    ],
)
def test_refused_inputs(refused, runners, name, inputs, words):
    with refused(BadInputError, *words):
        runners[name](*inputs)


@pytest.mark.parametrize("name", ["ort-float32", "tflite-float32"])
@pytest.mark.parametrize("damage", ["corrupt", "cut", "gone"])
def test_damaged_file_is_found_before_the_runtime_sees_it(refused, bundle_copy, name, damage):
    path = bundle_copy / Bundle.open(bundle_copy).artifact(name).path
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"\xff" + content[1:] if damage == "corrupt" else content[:-7])
    with refused(IntegrityError, path.name):
        Runner.open(bundle_copy, name)


def test_file_with_the_right_sha256_that_is_no_model(refused, bundle_copy, replace_file):
    replace_file("float32.onnx", b"not a model")
    with refused(BadInputError, "float32.onnx is no ONNX file"):
        Runner.open(bundle_copy, "ort-float32")


@pytest.mark.parametrize(
    ("recommended", "backend", "chosen"),
    [
        (None, None, "ort-float32"),
        (None, "tflite", "tflite-float32"),
        ("tflite-int8", None, "tflite-int8"),
        ("tflite-int8", "tflite", "tflite-int8"),
        ("tflite-int8", "ort", "ort-float32"),
        ("tensorrt-int8", None, "ort-float32"),
        ("gone", None, "ort-float32"),
    ],
)
def test_choice(bundle_copy, edit_manifest, recommended, backend, chosen):
    edit_manifest(lambda m: m.update(recommended=recommended))
    with Runner.open(bundle_copy, backend=backend) as runner:
        assert runner.artifact.name == chosen


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ({"artifact": "ort-int4"}, BadInputError, ("'ort-int4'", "ort-int8")),
        ({"backend": "coreml"}, BadInputError, ("'coreml'", "tflite")),
        ({"backend": "tensorrt"}, BackendUnavailableError, ("TensorRT",)),
        ({"artifact": "tensorrt-int8"}, BackendUnavailableError, ("TensorRT",)),
    ],
)
def test_choice_that_cannot_be(refused, compressed, how, error, words):
    with refused(error, *words):
        Runner.open(compressed.bundle.folder, **how)


def test_file_for_a_runtime_that_is_not_known(refused, bundle_copy, edit_manifest):
    edit_manifest(lambda m: m["artifacts"][0].update(backend="cloud"))
    with refused(BadInputError, "unknown backend 'cloud'", "tflite"):
        Runner.open(bundle_copy)


def keep(backends):
    def change(content):
        content["artifacts"] = [a for a in content["artifacts"] if a["backend"] in backends]

    return change


def test_bundle_without_the_wanted_backend(refused, bundle_copy, edit_manifest):
    edit_manifest(keep({"ort"}))
    with refused(BadInputError, "'tflite'"):
        Runner.open(bundle_copy, backend="tflite")


def test_bundle_for_another_machine(refused, bundle_copy, edit_manifest):
    edit_manifest(keep({"tensorrt"}))
    with refused(BackendUnavailableError):
        Runner.open(bundle_copy)


specs = st.builds(
    TensorSpec,
    name=st.just("x"),
    shape=st.just((None,)),
    dtype=st.sampled_from(["int8", "uint8", "int16"]),
    scale=st.floats(2.0**-20, 2.0**10, width=32),
    zero_point=st.integers(-128, 127),
).map(lambda s: s if s.dtype != "uint8" else TensorSpec("x", (None,), "uint8", s.scale, 128))


@settings(deadline=None)
@given(spec=specs, shares=st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_round_trip_error_is_at_most_half_a_step(spec, shares):
    limits = np.iinfo(spec.dtype)
    lo, hi = ((q - spec.zero_point) * spec.scale for q in (limits.min, limits.max))
    x = np.array([lo + s * (hi - lo) for s in shares], np.float32)
    integers = encode(x, spec)
    assert integers.dtype == spec.dtype
    rounding = np.abs(x) * 2.0**-22
    assert (np.abs(decode(integers, spec) - x) <= spec.scale / 2 + rounding).all()
    np.testing.assert_array_equal(encode(decode(integers, spec), spec), integers)


@settings(deadline=None)
@given(spec=specs, values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20))
def test_encode_against_a_loop(spec, values):
    limits = np.iinfo(spec.dtype)
    expected = [
        min(max(round(float(np.float32(v) / np.float32(spec.scale))) + spec.zero_point, limits.min),
            limits.max)
        for v in values
    ]  # fmt: skip
    assert encode(np.array(values, np.float32), spec).tolist() == expected


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_floats_pass_through(dtype):
    spec = TensorSpec("x", (None,), dtype)
    x = np.linspace(-3, 3, 50, dtype=np.float32)
    encoded = encode(x, spec)
    assert encoded.dtype == dtype
    assert decode(encoded, spec).dtype == np.float32
    np.testing.assert_allclose(decode(encoded, spec), x, rtol=2.0**-11 if dtype == "float16" else 0)


def test_values_far_from_the_calibrations_are_told_once(bundle_copy, images):
    with Runner.open(bundle_copy, "ort-float32") as runner:
        (spec,) = runner.bundle.manifest.inputs
        assert spec.low <= float(images.min()) < float(images.max()) <= spec.high
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            runner(images)
            runner(np.full_like(images, spec.high + 0.9 * (spec.high - spec.low)))
        raw = np.full_like(images, 255)
        with pytest.warns(UnusualInputWarning, match=r"'x' has values of 255 to 255.*preprocessed"):
            runner(raw[:2])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            runner(raw[:3])


def test_a_bundle_without_ranges_takes_what_it_is_given(bundle_copy, edit_manifest, images):
    edit_manifest(lambda m: m["inputs"][0].update(low=None, high=None))
    with Runner.open(bundle_copy, "ort-float32") as runner, warnings.catch_warnings():
        warnings.simplefilter("error")
        runner(np.full_like(images, 255))
