"""Golden vectors: they pass on the made bundle, and find a network that computes something else."""

import io

import numpy as np
import onnx
import onnxruntime
import pytest
from tiny import pictures

from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.golden import encode_golden, golden_inputs
from edgedl.runtime.errors import IntegrityError
from edgedl.runtime.loaded_model import LoadedModel
from edgedl.runtime.runner import Runner
from edgedl.runtime.selfcheck.golden import GoldenCheck, check_golden

NAME = "ort-float32"
KEY = f"{NAME}/0"


@pytest.fixture
def change_golden(bundle_copy, replace_file):
    """Replace or (with None) drop one array of the golden file; the sha256 is made to fit."""

    def change(key, array):
        with np.load(bundle_copy / "golden.npz") as archive:
            arrays = dict(archive)
        arrays.pop(key)
        if array is not None:
            arrays[key] = array
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        replace_file("golden.npz", buffer.getvalue())

    return change


def loaded(folder, name=NAME):
    bundle = Bundle.open(folder)
    return LoadedModel(bundle, bundle.artifact(name))


def expected_outputs(folder):
    with np.load(folder / "golden.npz") as archive:
        return archive[KEY]


@pytest.mark.parametrize("backend", ["ort", "tflite"])
@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_made_bundle_passes(compressed, backend, precision):
    bundle, name = compressed.bundle, f"{backend}-{precision}"
    with Runner(bundle, bundle.artifact(name)) as runner:
        check = check_golden(runner)
    assert check.artifact == name
    assert check.tolerance == bundle.artifact(name).golden_tolerances[0] > 0
    assert check.passed


def test_error_is_the_largest_difference(compressed):
    folder = compressed.bundle.folder
    session = onnxruntime.InferenceSession(folder / "int8.ort.onnx")
    with np.load(folder / "golden.npz") as archive:
        (found,) = session.run(None, {session.get_inputs()[0].name: archive["input/0"]})
        worst = np.abs(found - archive["ort-int8/0"]).max()
    with Runner.open(folder, "ort-int8") as runner:
        assert check_golden(runner).max_abs_error == pytest.approx(worst, abs=1e-6)


def test_inputs_are_test_pictures(compressed):
    (found,) = golden_inputs(compressed.bundle)
    images = pictures(600, 2).inputs[0][:64].transpose(0, 3, 1, 2) / 255
    places = [np.abs(images - x).max((1, 2, 3)).argmin() for x in found]
    assert places == sorted(set(places))
    np.testing.assert_allclose(found, images[places], atol=1e-6)


@pytest.mark.parametrize(("shift", "passes"), [(0.0, True), (0.9, True), (1.1, False)])
def test_tolerance_is_the_limit(bundle_copy, change_golden, manifest, shift, passes):
    tolerance = manifest.artifacts[0].golden_tolerances[0]
    expected = expected_outputs(bundle_copy)
    expected[3, 1] += np.float32(shift * tolerance)
    change_golden(KEY, expected)
    with loaded(bundle_copy) as runner:
        check = check_golden(runner)
    assert check.passed is passes
    assert check.max_abs_error == pytest.approx(shift * tolerance, abs=0.01 * tolerance)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_no_numbers_never_pass(bundle_copy, change_golden, value):
    expected = expected_outputs(bundle_copy)
    expected[0, 0] = value
    change_golden(KEY, expected)
    with loaded(bundle_copy) as runner:
        check = check_golden(runner)
    assert check.max_abs_error == np.inf
    assert not check.passed


def test_network_with_one_flipped_bit_is_found(bundle_copy, replace_file):
    model = onnx.load(bundle_copy / "float32.onnx")
    bias = next(w for w in model.graph.initializer if w.name == "fc.bias")
    raw = bytearray(bias.raw_data)
    raw[3] ^= 0x02  # a bit of the first value's exponent
    bias.raw_data = bytes(raw)
    replace_file("float32.onnx", model.SerializeToString())
    Bundle.open(bundle_copy).verify()
    with loaded(bundle_copy) as runner:
        assert not check_golden(runner).passed


@pytest.mark.parametrize("key", [KEY, "input/0"])
def test_missing_vectors(refused, bundle_copy, change_golden, key):
    change_golden(key, None)
    with loaded(bundle_copy) as runner, refused(IntegrityError, f"'{key}'"):
        check_golden(runner)


def test_bundle_without_golden_file(refused, bundle_copy, edit_manifest):
    (bundle_copy / "golden.npz").unlink()
    edit_manifest(lambda m: m["files"].pop("golden.npz"))
    with refused(IntegrityError, "no golden.npz"):
        golden_inputs(Bundle.open(bundle_copy))


def test_damaged_golden_file(refused, bundle_copy):
    path = bundle_copy / "golden.npz"
    path.write_bytes(path.read_bytes()[:-10])
    with refused(IntegrityError, "golden.npz"):
        golden_inputs(Bundle.open(bundle_copy))


def test_encoded_vectors_read_back():
    rng = np.random.default_rng(0)
    inputs = (rng.random((5, 2), np.float32), rng.integers(0, 9, (5, 3)))
    expected = {"ort-int8": (rng.random((5, 4), np.float32),), "b": (inputs[0], inputs[0] + 1)}
    with np.load(io.BytesIO(encode_golden(inputs, expected)), allow_pickle=False) as archive:
        assert set(archive) == {"input/0", "input/1", "ort-int8/0", "b/0", "b/1"}
        np.testing.assert_array_equal(archive["input/1"], inputs[1])
        np.testing.assert_array_equal(archive["b/1"], inputs[0] + 1)


@pytest.mark.parametrize(("error", "passed"), [(0.0, True), (0.5, True), (0.50001, False)])
def test_verdict(error, passed):
    assert GoldenCheck("a", error, 0.5).passed is passed


@pytest.mark.parametrize(
    ("name", "isa", "bits", "hinted"),
    [
        ("ort-int8", ("avx2", "avx512f"), 8, True),
        ("ort-int8", ("avx2", "avx512f"), 7, False),
        ("ort-int8", ("avx2", "avx512_vnni"), 8, False),
        ("ort-int8", ("asimddp",), 8, False),
        ("tflite-int8", ("avx2",), 8, False),
        (NAME, ("avx2",), 8, False),
    ],
)
def test_a_processor_without_vnni_is_named_as_the_reason(
    bundle_copy, change_golden, edit_manifest, monkeypatch, name, isa, bits, hinted
):
    monkeypatch.setattr("edgedl.runtime.selfcheck.saturation.instruction_sets", lambda: isa)
    with np.load(bundle_copy / "golden.npz") as archive:
        expected = archive[f"{name}/0"]
    change_golden(f"{name}/0", expected + 1000)
    edit_manifest(lambda m: m["history"][0]["settings"].__setitem__("weight_bits", bits))
    with loaded(bundle_copy, name) as runner:
        check = check_golden(runner)
    assert not check.passed
    assert ("--target ort_avx2" in check.why) is hinted
