"""``edgedl compile``: engines ahead of time, packages for devices, and what it says elsewhere."""

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from command import Run, assert_one_line

from edgedl.compress.pipeline import CompressedModel
from edgedl.runtime.errors import BackendUnavailableError
from edgedl.runtime.gpu import find_gpu

NAMES = ["tensorrt-float32", "tensorrt-float16", "tensorrt-bfloat16", "tensorrt-int8"]
needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed"
)


def has_gpu() -> bool:
    try:
        find_gpu()
    except BackendUnavailableError:
        return False
    return True


needs_no_gpu = pytest.mark.skipif(has_gpu(), reason="there is a GPU")


@pytest.fixture
def bundle(compressed: CompressedModel) -> Path:
    return compressed.bundle.folder


@needs_no_gpu
def test_without_a_gpu_it_says_so_and_what_to_do(edgedl: Run, bundle: Path) -> None:
    for target in ("tensorrt", "tensorrt_rtx"):
        done = edgedl("compile", bundle, "--target", target)
        assert_one_line(done, 4, "no NVIDIA driver", "--package DIR")
    done = edgedl("run", bundle, "--backend", "tensorrt", "--input", "x.npy")
    assert_one_line(done, 4, "no NVIDIA driver")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--batch", "4:2:1"), ("MIN <= OPT <= MAX",)),
        (("--artifact", "tensorrt-int9"), ("tensorrt-int8",)),
        (("--artifact", "ort-int8"), ("is for ort",)),
        (("--compute-capability", "8.6"), ("--out",)),
        (("--out", "engines"), ("--compute-capability",)),
        (("--target", "tensorrt_rx"), ("tensorrt_rtx",)),
        (("--workspace", "0"), ("--workspace",)),
    ],
)
def test_wrong_arguments_are_one_line(
    edgedl: Run, bundle: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    assert_one_line(edgedl("compile", bundle, *options), 2, *words)


@needs_rtx
def test_engines_are_compiled_ahead_of_time(edgedl: Run, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "engines"
    rtx = ("--target", "tensorrt_rtx", "--compute-capability", "8.6", "--out", out)
    done = edgedl("compile", bundle, *rtx, "--batch", "1:2:8", "--artifact", "tensorrt-int8")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tensorrt-int8: engine of ")
    assert done.stdout.endswith("not run\n")
    assert [path.name for path in out.iterdir()] == ["tensorrt-int8.engine"]
    # Nothing is left where the builder refuses.
    other = tmp_path / "other"
    rtx = ("--target", "tensorrt_rtx", "--compute-capability", "8.7", "--out", other)
    assert_one_line(edgedl("compile", bundle, *rtx), 2, "'8.7'", "8.6")
    assert not other.exists()


@pytest.fixture
def package(edgedl: Run, bundle: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    done = edgedl("compile", bundle, "--package", folder, "--workspace", 256)
    assert done.returncode == 0, done.stderr
    assert "build_and_run.py" in done.stdout
    return folder


def test_a_package_has_what_a_device_needs(package: Path, compressed: CompressedModel) -> None:
    files = json.loads((package / "package.json").read_text())["files"]
    assert [file["name"] for file in files] == NAMES
    golden = np.load(package / "golden.npz")
    for file in files:
        artifact = compressed.bundle.artifact(file["name"])
        assert (package / file["path"]).read_bytes() == compressed.bundle.read(artifact.path)
        assert file["tolerances"] == list(artifact.golden_tolerances)
        assert f"{file['name']}/0" in golden
        assert file["profile"][0]["max"] == [16, 3, 12, 12]
    readme = (package / "README.md").read_text()
    assert readme.count("--stronglyTyped") == len(NAMES)
    assert readme.count("--maxShapes=x:16x3x12x12") == 2 * len(NAMES)
    assert readme.count("--memPoolSize=workspace:256") == 2 * len(NAMES)
    for system in ("JetPack 6", "JetPack 7"):
        assert system in readme


def test_what_was_asked_for_is_in_the_package(edgedl: Run, bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "package"
    options = ("--dla", 1, "--sparse", "--workspace", 64)
    assert edgedl("compile", bundle, "--package", folder, *options).returncode == 0
    (file, *_) = json.loads((folder / "package.json").read_text())["files"]
    assert (file["dla_core"], file["sparse"], file["workspace_mib"]) == (1, True, 64)
    # NVIDIA's accelerator takes fixed sizes alone.
    (sizes,) = file["profile"]
    assert sizes["min"] == sizes["opt"] == sizes["max"] == [1, 3, 12, 12]


@needs_rtx
@pytest.mark.slow
def test_killed_while_it_builds_it_leaves_nothing(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "engines"
    command = [sys.executable, "-c", "from edgedl.tools.cli import main; main()", "compile", bundle]
    rtx = ["--target", "tensorrt_rtx", "--compute-capability", "8.6", "--out", out]
    running = psutil.Popen([*map(str, command + rtx)], stderr=subprocess.DEVNULL)
    while not (builders := running.children(recursive=True)):
        assert running.poll() is None, "it has ended"
        time.sleep(0.01)
    running.kill()
    running.wait()
    _, alive = psutil.wait_procs(builders, timeout=20)
    assert not alive
    assert not out.exists()
    assert subprocess.run([*map(str, command + rtx)], check=False).returncode == 0
    assert len(list(out.iterdir())) == len(NAMES)


def script(package: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the package's script."""
    command = [sys.executable, str(package / "build_and_run.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@needs_rtx
def test_the_packages_script_builds_engines_itself(package: Path) -> None:
    done = script(package, "--library", "tensorrt_rtx", "--compute-capability", "8.6")
    assert done.returncode == 0, done.stderr
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == NAMES
    engines = {path.name for path in (package / "engines").iterdir()}
    assert engines == {f"{name}.engine" for name in NAMES}


@needs_rtx
def test_the_packages_script_says_what_the_parser_refuses(package: Path) -> None:
    (package / "int8.tensorrt.onnx").write_bytes(b"no model")
    options = ("--library", "tensorrt_rtx", "--compute-capability", "8.6")
    done = script(package, *options, "--only", "tensorrt-int8")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("build_and_run: tensorrt-int8: ")
    done = script(package, *options, "--only", "tensorrt-int9")
    assert (done.returncode, "tensorrt-int8" in done.stderr) == (2, True)


@needs_no_gpu
def test_the_packages_script_needs_a_driver(package: Path) -> None:
    done = script(package)
    assert done.returncode == 4
    assert done.stderr == (
        "build_and_run: there is no NVIDIA driver here (libcuda.so.1 cannot be loaded)\n"
    )


def test_the_packages_script_imports_neither_edgedl_nor_torch(package: Path) -> None:
    text = (package / "build_and_run.py").read_text()
    imports = [
        line.split()[1]
        for line in text.splitlines()
        if line.lstrip().startswith(("import ", "from "))
    ]
    assert set(imports) == {
        "argparse", "ctypes", "importlib", "json", "sys", "time", "pathlib", "typing", "numpy",
        "cuda.bindings",
    }  # fmt: skip
