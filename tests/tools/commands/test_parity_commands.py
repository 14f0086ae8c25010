"""``edgedl verify --parity`` and ``edgedl inspect --parity``, on whole and on damaged bundles."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from command import Run

from edgedl.compress.pipeline import CompressedModel
from edgedl.runtime.bundle.bundle import Bundle, record_files, write_manifest
from edgedl.runtime.bundle.layer_vectors import LAYER_VECTORS, positions


@pytest.fixture
def damaged(compressed: CompressedModel, tmp_path: Path) -> Callable[[str, bytes], Path]:
    """Return a bundle with one file replaced, and a manifest that says so."""

    def damage(name: str, content: bytes) -> Path:
        folder = tmp_path / "bundle"
        shutil.copytree(compressed.bundle.folder, folder)
        (folder / name).write_bytes(content)
        manifest = Bundle.open(folder).manifest
        files = record_files(folder)
        write_manifest(folder, msgspec.structs.replace(manifest, files=files))
        return folder

    return damage


def test_a_whole_bundle_passes(edgedl: Run, compressed: CompressedModel) -> None:
    done = edgedl("verify", compressed.bundle.folder, "--parity")
    assert done.returncode == 0, done.stderr
    assert "12 of 12 as certified" in done.stdout
    assert "11 of 11 as certified" in done.stdout
    assert "first layer" not in done.stdout
    assert "layers" not in edgedl("verify", compressed.bundle.folder).stdout


def test_the_first_layer_that_disagrees_is_named(
    edgedl: Run, compressed: CompressedModel, damaged: Callable[[str, bytes], Path]
) -> None:
    model = onnx.load_from_string(compressed.bundle.read("int8.ort.onnx"))
    weight = next(t for t in model.graph.initializer if t.name == "conv2d_1_weight_int8")
    weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), weight.name))
    done = edgedl("verify", damaged("int8.ort.onnx", model.SerializeToString()), "--parity")
    assert done.returncode == 5
    (line,) = [text for text in done.stdout.splitlines() if "first layer" in text]
    assert "depthwise, 'relu' (quantize_per_tensor_2)" in line
    assert "ort-int8: the outputs on this machine differ" in done.stderr


def test_vectors_that_do_not_fit_are_an_error(
    edgedl: Run, compressed: CompressedModel, damaged: Callable[[str, bytes], Path]
) -> None:
    with np.load(compressed.bundle.folder / LAYER_VECTORS) as archive:
        arrays = dict(archive)
    arrays["ort-int8"] = arrays["ort-int8"][1:]
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    done = edgedl("verify", damaged(LAYER_VECTORS, buffer.getvalue()), "--parity")
    assert done.returncode == 5
    assert "does not fit the layers of ort-int8" in done.stderr


def test_inspect_shows_every_layer(edgedl: Run, compressed: CompressedModel) -> None:
    done = edgedl("inspect", compressed.bundle.folder, "--parity")
    assert done.returncode == 0, done.stderr
    for part in ("ort-int8 (onnxruntime", "tensorrt-int8 (integer emulator, no GPU)", "depthwise"):
        assert part in done.stdout
    assert "ort-int8 against tflite-int8" in done.stdout
    assert "not in the file: flatten_using_ints" in done.stdout


@pytest.mark.parametrize("size", [1, 255, 256, 257, 4096, 100_000])
def test_places_lie_inside_and_apart(size: int) -> None:
    found = positions(size)
    assert len(found) == min(size, 256)
    # Barely larger tensors are read twice in places; larger ones are not.
    assert len(set(found.tolist())) >= (len(found) if size > 1000 else 0.8 * len(found))
    assert 0 <= found.min() <= found.max() < size
    if size > 1000:
        # No stretch of a tenth is left out.
        assert np.histogram(found, 10, (0, size))[0].min() >= 20
