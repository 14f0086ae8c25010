"""Bad input: one readable line, the right exit code, nothing half-written, nothing overwritten."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from command import Run, assert_one_line
from measured import make_result

from edgedl.runtime.install import install_line
from edgedl.tools.bench.result import write_result

RESNET8 = Path(__file__).resolve().parents[2] / "models/weights/resnet8-cifar10.safetensors"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compress", "resnet9"], ["unknown model 'resnet9'", "resnet8-cifar10"]),
        (["compress", "nowhere.py:subject"], ["nowhere.py"]),
        (["compress", "lenet5-fashion_mnist", "--recipe", "static_w8"], ["did you mean"]),
        (["compress", "lenet5-fashion_mnist", "--target", "ort,tpu"], ["unknown target 'tpu'"]),
        (["compress", "lenet5-fashion_mnist", "--threads", "0"], ["--threads"]),
        (["compress", "lenet5-fashion_mnist", "--max-drop", "-1"], ["--max-drop"]),
        (
            ["compress", "lenet5-fashion_mnist", "--keep-float", "convl"],
            ["no layer is called 'convl'", "conv1"],
        ),
        (
            ["compress", "lenet5-fashion_mnist", "--recipe", "float", "--keep-float", "conv1"],
            ["cannot keep 'conv1' in float"],
        ),
        (["bench", "nowhere"], ["nowhere", "not a bundle"]),
        (
            ["compress", "lenet5-fashion_mnist", "--weights", RESNET8],
            ["resnet8-cifar10.safetensors does not fit", "no 'conv1.weight'"],
        ),
        (
            ["compress", "lenet5-fashion_mnist", "--weights", Path(__file__)],
            ["test_cli_errors.py is not a readable safetensors file"],
        ),
        (
            ["compress", f"{__file__}:f", "--weights", RESNET8],
            ["--weights is for reference models"],
        ),
    ],
)
def test_wrong_words(
    edgedl: Run, tmp_path: Path, arguments: list[object], words: list[str]
) -> None:
    out = tmp_path / "out"
    assert_one_line(edgedl(*arguments, "--out", out), 2, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], ["No such command 'nonsense'"]),
        (["run"], ["Missing argument"]),
        (["compress", "x", "--out", "y", "--speed"], ["No such option"]),
        (["train", "resnet9"], ["unknown model"]),
        (["data", "fetch", "mnist2"], ["unknown data set 'mnist2'"]),
        (["data", "fetch", "imagenet"], ["edgedl data fetch cifar10"]),
        (["models", "table", Path(__file__).parent, "--out", "x.md"], ["no NAME.json"]),
        (["models", "show", "resnet9"], ["unknown model"]),
        (["report", "nowhere", "--out", "page.html"], ["has no result.json"]),
        (["inspect", "nowhere"], ["nowhere is not a bundle: there is no such folder"]),
    ],
)
def test_wrong_words_without_output(edgedl: Run, arguments: list[object], words: list[str]) -> None:
    assert_one_line(edgedl(*arguments), 2, *words)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "distribution", "arguments"),
    [
        ("torch", "torch", ["compress", "lenet5-fashion_mnist", "--out", "out"]),
        ("torch", "torch", ["explain", "lenet5-fashion_mnist"]),
        ("torch", "torch", ["train", "lenet5-fashion_mnist", "--out", "out"]),
        ("yaml", "pyyaml", ["operators"]),
        ("filelock", "filelock", ["cache"]),
    ],
)
def test_a_package_that_a_device_does_without(
    module: str, distribution: str, arguments: list[str], tmp_path: Path
) -> None:
    code = (
        f"import sys\nsys.modules[{module!r}] = None\n"
        "from edgedl.tools.cli import main\nmain(sys.argv[1:])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stderr == f"edgedl: {distribution} is missing: {install_line('compress')}\n"
    assert done.returncode == 4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stages:\n  - stage: quantize_static\n    sampels: 9\n", ["line 3", "'samples'"]),
        ("description: x\nstages:\n  - stage: quantise\n", ["line 3", "quantize_static"]),
        ("description: x\nstages: [", ["not YAML"]),
        ("description: x\nstages:\n  - stage: quantize_static\n    samples: 0\n", ["line 4"]),
    ],
)
def test_recipe_files(edgedl: Run, tmp_path: Path, text: str, words: list[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    out = tmp_path / "out"
    done = edgedl("compress", "lenet5-fashion_mnist", "--recipe", recipe, "--out", out)
    assert_one_line(done, 2, str(recipe), *words)
    assert not out.exists()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def subject():\n    x = 1\n    return 1 / 0\n", ["line 3", "ZeroDivisionError"]),
        ("def subject(:\n", ["SyntaxError"]),
        ("import no_such_module\n", ["line 1", "no_such_module"]),
        ("def subject():\n    return 7\n", ["int", "Subject"]),
        ("other = 1\n", ["no function 'subject'"]),
    ],
)
def test_subject_that_fails(edgedl: Run, tmp_path: Path, code: str, words: list[str]) -> None:
    (tmp_path / "mine.py").write_text(code)
    done = edgedl("compress", f"{tmp_path / 'mine.py'}:subject", "--out", tmp_path / "out")
    assert_one_line(done, 2, *words)
    assert [p.name for p in tmp_path.iterdir() if p.name != "__pycache__"] == ["mine.py"]


def test_output_folder_that_holds_something_is_left_alone(edgedl: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    done = edgedl("compress", "lenet5-fashion_mnist", "--out", out)
    assert_one_line(done, 2, "not an empty folder")
    assert (out / "thesis.txt").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_output_folder_that_cannot_be_made(edgedl: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = edgedl("compress", "lenet5-fashion_mnist", "--out", tmp_path / "file" / "out")
    assert_one_line(done, 2, "cannot be written")


@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [
        (lambda f: f.write_bytes(b"\x00" + f.read_bytes()[1:]), 5, ["sha256"]),
        (lambda f: f.write_bytes(f.read_bytes()[:-10]), 5, ["bytes"]),
        (lambda f: f.rename(f.with_name("other.onnx")), 5, ["missing"]),
        (lambda f: f.unlink(), 5, ["missing"]),
    ],
)
def test_damaged_bundle(
    edgedl: Run,
    bundle_copy: Path,
    tmp_path: Path,
    damage: Callable[[Path], object],
    code: int,
    words: list[str],
) -> None:
    damage(bundle_copy / "float32.onnx")
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 12, 12), np.float32))
    run = ["run", bundle_copy, "--input", tmp_path / "x.npy", "--artifact", "ort-float32"]
    assert_one_line(edgedl(*run), code, *words)
    assert_one_line(edgedl("verify", bundle_copy), code, *words)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((1, 3, 12, 12), np.nan, np.float32), ["not finite"]),
        (np.zeros((1, 3, 11, 12), np.float32), ["must be [N, 3, 12, 12]"]),
        (np.zeros((1, 3, 12, 12), np.float64), ["float32"]),
        (np.zeros((0, 3, 12, 12), np.float32), ["must be"]),
        (np.zeros((1, 12, 12, 1), np.uint8), ["uint8"]),
    ],
)
def test_arrays_that_do_not_fit(
    edgedl: Run, bundle_copy: Path, tmp_path: Path, array: np.ndarray, words: list[str]
) -> None:
    np.save(tmp_path / "x.npy", array)
    assert_one_line(edgedl("run", bundle_copy, "--input", tmp_path / "x.npy"), 2, *words)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.png", b"no picture", ["not a readable picture"]),
        ("x.npy", b"no array", ["not a readable array"]),
        ("empty", None, ["holds no picture"]),
    ],
)
def test_inputs_that_cannot_be_read(
    edgedl: Run,
    bundle_copy: Path,
    tmp_path: Path,
    name: str,
    content: bytes | None,
    words: list[str],
) -> None:
    path = tmp_path / name
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    assert_one_line(edgedl("run", bundle_copy, "--input", path), 2, *words)


def test_backends_that_are_not_there(edgedl: Run, bundle_copy: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 12, 12), np.float32))
    run = ["run", bundle_copy, "--input", tmp_path / "x.npy"]
    assert_one_line(edgedl(*run, "--backend", "coreml"), 2, "unknown backend")
    assert_one_line(edgedl(*run, "--backend", "tensorrt"), 4, "no NVIDIA driver")
    assert_one_line(edgedl(*run, "--artifact", "ort-int4"), 2, "no artifact 'ort-int4'")


@pytest.mark.parametrize("command", ["compress", "train"])
@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("gpu", ["no device 'gpu'", "cuda"]),
        ("meta", ["meta is not available here", "cpu"]),
        pytest.param(
            "cuda",
            ["cuda is not available here", "CUDA"],
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
    ],
)
def test_devices_that_are_not_there(
    edgedl: Run, tmp_path: Path, command: str, device: str, words: list[str]
) -> None:
    done = edgedl(command, "mlp-fashion_mnist", "--device", device, "--out", tmp_path / "out")
    assert_one_line(done, 2, *words)
    assert not (tmp_path / "out").exists()


def test_report_does_not_replace_a_file(edgedl: Run, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine")
    write_result(tmp_path, make_result(), {})
    assert_one_line(edgedl("report", tmp_path, "--out", page), 2, "--force")
    assert page.read_text() == "mine"
