"""``edgedl run`` on every kind of input, and with nothing but a device's packages."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from command import Run
from PIL import Image
from tiny import CLASSES, make_net, pictures

from edgedl.compress.pipeline import CompressedModel
from edgedl.runtime.bundle.seal import write_sealed
from edgedl.tools.commands.run import command as run_command

BACKENDS = ["ort", "tflite"]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return pictures(6, 3).inputs[0]


@pytest.fixture(scope="module")
def expected(images: np.ndarray) -> np.ndarray:
    """Logits of the float network in torch."""
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    with torch.no_grad():
        return make_net()(x).numpy()


def logits(stdout: str) -> np.ndarray:
    lines = [json.loads(line) for line in stdout.splitlines()]
    return np.array([next(iter(line["outputs"].values())) for line in lines])


@pytest.mark.parametrize("backend", BACKENDS)
def test_array_file(
    edgedl: Run,
    compressed: CompressedModel,
    tmp_path: Path,
    images: np.ndarray,
    expected: np.ndarray,
    backend: str,
) -> None:
    np.save(tmp_path / "x.npy", images)
    arguments = ["--input", tmp_path / "x.npy", "--artifact", f"{backend}-float32", "--json"]
    done = edgedl("run", compressed.bundle.folder, *arguments)
    assert done.returncode == 0
    np.testing.assert_allclose(logits(done.stdout), expected, atol=1e-5)


def test_folder_of_pictures_in_order(
    edgedl: Run,
    compressed: CompressedModel,
    tmp_path: Path,
    images: np.ndarray,
    expected: np.ndarray,
) -> None:
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    done = edgedl(
        "run", compressed.bundle.folder, "--input", tmp_path, "--backend", "ort",
        "--artifact", "ort-float32", "--json",
    )  # fmt: skip
    np.testing.assert_allclose(logits(done.stdout), expected, atol=1e-5)


def test_picture_prints_classes_with_probabilities(
    edgedl: Run,
    compressed: CompressedModel,
    tmp_path: Path,
    images: np.ndarray,
    expected: np.ndarray,
) -> None:
    Image.fromarray(images[0]).save(tmp_path / "x.png")
    arguments = ["--input", tmp_path / "x.png", "--artifact", "ort-float32", "--top", 4]
    done = edgedl("run", compressed.bundle.folder, *arguments)
    best = CLASSES[int(expected[0].argmax())]
    probability = np.exp(expected[0]) / np.exp(expected[0]).sum()
    assert f"x.png: {best} {100 * probability.max():.1f} %" in done.stdout
    assert all(name in done.stdout for name in CLASSES)


def test_npz_with_input_names(
    edgedl: Run,
    compressed: CompressedModel,
    tmp_path: Path,
    images: np.ndarray,
    expected: np.ndarray,
) -> None:
    x = images.transpose(0, 3, 1, 2).astype(np.float32) / 255
    np.savez(tmp_path / "x.npz", x=x, other=np.zeros(3))
    arguments = ["--input", tmp_path / "x.npz", "--artifact", "ort-float32", "--json"]
    done = edgedl("run", compressed.bundle.folder, *arguments)
    np.testing.assert_allclose(logits(done.stdout), expected, atol=1e-5)


# Lets in the standard library, what a device installs, and what its runtime itself asks for.
DEVICE_ONLY = """
import sys
allowed = set(sys.stdlib_module_names) | {"numpy", "click", "msgspec", "PIL", "edgedl"} | {DRIVER}
class Gate:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in allowed and not name.startswith("__editable__"):
            raise ModuleNotFoundError(f"{name} is not on the device", name=name)
sys.meta_path.insert(0, Gate())
from edgedl.tools.cli import main
main(sys.argv[1:])
"""
DRIVERS = {
    "ort": "{'onnxruntime'}",
    "tflite": "{'ai_edge_litert', 'ml_dtypes', 'flatbuffers'}",
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("command", ["run", "verify", "inspect", "bench"])
def test_device_packages_are_enough(
    compressed: CompressedModel, tmp_path: Path, images: np.ndarray, backend: str, command: str
) -> None:
    Image.fromarray(images[0]).save(tmp_path / "x.png")
    arguments = {
        "run": ["--input", str(tmp_path / "x.png"), "--backend", backend],
        "verify": [],
        "inspect": [],
        # The bundle's task is a test's own, so bench must get past every import to say so.
        "bench": ["--out", str(tmp_path / "out"), "--baseline-artifact", f"{backend}-float32"],
    }[command]
    script = DEVICE_ONLY.replace("{DRIVER}", DRIVERS[backend])
    done = subprocess.run(
        [sys.executable, "-c", script, command, str(compressed.bundle.folder), *arguments],
        capture_output=True,
        text=True,
    )
    assert "not on the device" not in done.stderr
    if command == "bench":
        assert "the bundle's task 'noise' has no data in edgedl" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
    if command == "run":
        assert any(name in done.stdout for name in CLASSES)


@pytest.mark.parametrize(("isa", "warned"), [(("avx2",), True), (("avx2", "avx_vnni"), False)])
def test_weights_that_saturate_here_are_warned_of(
    bundle_copy: Path,
    tmp_path: Path,
    images: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    isa: tuple[str, ...],
    warned: bool,
) -> None:
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    manifest["history"][0]["settings"]["weight_bits"] = 8
    write_sealed(bundle_copy, json.dumps(manifest).encode())
    np.save(tmp_path / "x.npy", images)
    monkeypatch.setattr("edgedl.runtime.selfcheck.saturation.instruction_sets", lambda: isa)
    arguments = [str(bundle_copy), "--input", str(tmp_path / "x.npy"), "--artifact", "ort-int8"]
    done = CliRunner().invoke(run_command, arguments)
    assert done.exit_code == 0
    assert ("warning: this processor has no VNNI" in done.stderr) is warned
    assert "--target" not in done.stdout
