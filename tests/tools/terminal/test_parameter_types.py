"""Wrong values are refused before anything heavy is imported, each in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgedl.runtime.errors import BadInputError
from edgedl.tools.terminal.parameter_types import CONFIDENCE, POINTS, NumberIn

# torch cannot be imported: a command that tries says so, with exit code 4.
WITHOUT_TORCH = (
    "import sys\nsys.modules['torch'] = None\n"
    "from edgedl.tools.cli import main\nmain(sys.argv[1:])\n"
)
MODEL = "lenet5-fashion_mnist"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compress", MODEL, "--recipe", "fsat", "--out", "x"], "no recipe 'fsat'"),
        (["explain", "lenet9"], "unknown model 'lenet9'"),
        (["explain", "nowhere.py:subject"], "there is no file 'nowhere.py'"),
        (["explain", MODEL, "--recipe", "nowhere.yaml"], "no recipe 'nowhere.yaml'"),
        (["explain", "full/file"], "full/file is not a Python file: give file.py:function"),
        (["explain", MODEL, "--samples", "0"], "--samples"),
        (["explain", MODEL, "--weights", "nowhere"], "'nowhere' does not exist"),
        (["explain", MODEL, "--top", "3"], "--top is for layers to time"),
        (["train", "lenet9"], "unknown model 'lenet9'"),
        (["train", MODEL, "--threads", "0"], "--threads"),
        (["train", MODEL, "--epochs", "0"], "--epochs"),
        (["train", MODEL, "--out", "full/file"], "is a file"),
        (["convert", "nowhere.onnx", "--out", "x"], "there is no file nowhere.onnx"),
        (["convert", "full/file", "--target", "tpu", "--out", "x"], "unknown target 'tpu'"),
        (["convert", "full/file", "--target", "tflite", "--out", "x"], "cannot be written for"),
        (["convert", "full/file", "--out", "full/file"], "is a file"),
        (["convert", "full/file", "--out", "x", "--input", "no.npy"], "there is no file no.npy"),
        (["bench", "nowhere", "--out", "x"], "nowhere is not a bundle"),
        (["bench", "full", "--out", "x"], "neither it nor full/bundle has a manifest.json"),
        (["bench", ".", "--out", "x"], "has a manifest.json, did you mean 'demo'?"),
        (["bench", "full/file", "--out", "x"], "neither a bundle nor a .onnx or .tflite file"),
        (["diff", "full", "full"], "full is a folder: give two files"),
        (["bench", "demo", "--out", "full"], "full exists and is not an empty folder"),
        (["bench", "demo", "--out", "full/file/x"], "full/file is a file"),
        (["bench", "demo", "--out", "x", "--threads", "1,many"], "--threads takes numbers"),
        (["bench", "demo", "--out", "x", "--threads", "²"], "--threads takes numbers"),
        (["bench", "demo", "--out", "x", "--budget", "speed<2"], "no quantity 'speed'"),
        (["bench", "demo", "--out", "x", "--blocks", "3"], "--blocks"),
        (["bench", "demo", "--out", "x", "--task", "nowhere.py"], "no file 'nowhere.py'"),
        (
            ["bench", "demo", "--out", "x", "--task", "fashion_mnits"],
            "unknown model 'fashion_mnits'",
        ),
    ],
)
def test_refused_without_torch(tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    (tmp_path / "demo" / "bundle").mkdir(parents=True)
    (tmp_path / "demo" / "bundle" / "manifest.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (POINTS, "-1"),
        (POINTS, "100.1"),
        (POINTS, "nan"),
        (POINTS, "inf"),
        (POINTS, "two"),
        (CONFIDENCE, "0.49"),
        (CONFIDENCE, "1"),
        (CONFIDENCE, "95"),
    ],
)
def test_numbers_outside_are_refused(kind: NumberIn, text: str) -> None:
    with pytest.raises(BadInputError, match=f"^--.*, got {text}$"):
        kind.convert(text, None, None)


def test_numbers_inside_are_taken() -> None:
    assert [POINTS.convert(text, None, None) for text in ("0", "2.5", "100")] == [0, 2.5, 100]
    assert [CONFIDENCE.convert(text, None, None) for text in ("0.5", "0.99")] == [0.5, 0.99]
