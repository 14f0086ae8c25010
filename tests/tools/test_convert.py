"""``edgedl convert``: an int8 file of a bundle stands for one from elsewhere."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from command import Run

from edgedl.compress.export.tensorrt import lint
from edgedl.compress.pack import CompressedModel


def test_a_file_is_written_for_both_targets(
    edgedl: Run, compressed: CompressedModel, tmp_path: Path
) -> None:
    x = tmp_path / "x.npy"
    with np.load(compressed.bundle.folder / "golden.npz") as golden:
        np.save(x, golden["input/0"])
    source = compressed.bundle.folder / "int8.ort.onnx"
    done = edgedl("convert", source, "--out", tmp_path / "made", "--input", x)
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert "int8.ort.ort.onnx: the same outputs, 100.0 % the same prediction, 5 s" in first
    assert second.startswith("tensorrt: accepted by")
    assert " dB, " in third
    made = onnx.load(tmp_path / "made" / "int8.ort.tensorrt.onnx")
    assert lint(made) == []


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("int8.tflite", [], "cannot be written for another runtime"),
        ("float32.onnx", [], "is not quantized"),
        ("nowhere.onnx", [], "there is no file"),
        ("int8.ort.onnx", ["--target", "tflite"], "cannot be written as TFLite"),
        ("int8.ort.onnx", ["--input", "manifest.json"], "is not a .npy array"),
        ("int8.ort.onnx", ["--input", "x.npy", "--input", "x.npy"], "has 1 inputs, 2 arrays were"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    edgedl: Run, compressed: CompressedModel, tmp_path: Path, name: str, options: list, words: str
) -> None:
    folder = compressed.bundle.folder
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 12, 12), np.float32))
    places = {"manifest.json": folder, "x.npy": tmp_path}
    options = [places[o] / o if o in places else o for o in options]
    done = edgedl("convert", folder / name, "--out", tmp_path / "made", *options)
    assert done.returncode == 2
    assert words in done.stderr
    assert not (tmp_path / "made").exists()
