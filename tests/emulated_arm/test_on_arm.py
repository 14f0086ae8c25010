"""The files of a bundle on ARM processors: emulated ones, with the runtimes' own wheels for them.

The integers of every layer must be those that the machine that compressed has certified, with and
without int8 dot products.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgedl.compress.pipeline import CompressedModel, compress
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.runtime.bundle.golden import golden_inputs
from edgedl.runtime.task.task import ArrayTask, Samples

SCRIPT = Path(__file__).with_name("edgedl_on_arm.sh")
NOT_SET_UP = 75
CPUS = ("cortex-a72", "neoverse-n1")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("qemu-aarch64-static") and shutil.which("debootstrap")),
        reason="needs Debian's qemu-user-static and debootstrap",
    ),
]

OnArm = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def on_arm() -> OnArm:
    def run(cpu: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(SCRIPT), cpu, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=600,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        )
        if done.returncode == NOT_SET_UP:
            pytest.skip(f"no ARM system could be set up: {done.stderr.strip()[-200:]}")
        return done

    return run


def bright(count: int, seed: int) -> Samples:
    """Return pictures whose 8-bit values are nearly all at the end of their grid."""
    values = np.random.default_rng(seed).uniform(0.9, 1.0, (count, 8, 6, 6))
    values[:, :, 0, 0] = 0.0
    return Samples((values.astype(np.float32),), np.zeros(count, np.int64))


@pytest.fixture(scope="module")
def extreme(tmp_path_factory: pytest.TempPathFactory) -> CompressedModel:
    """Inputs and weights at the ends of their grids: two products do not fit 16 bits."""
    net = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3)).eval()
    with torch.no_grad():
        for layer in (net[0], net[2]):
            layer.weight.fill_(0.1)
            layer.weight[::2].neg_()
    task = ArrayTask(
        name="bright",
        splits={"calibration": lambda: bright(64, 1), "test": lambda: bright(64, 2)},
        metric="output",
        score_samples=lambda outputs, labels: np.zeros(len(labels)),
    )
    folder = tmp_path_factory.mktemp("extreme") / "bundle"
    folder.mkdir()
    recipe = load_recipe("static_w8c_a8")
    return compress(Subject("extreme", net, task), recipe, (ORT, TFLITE), folder)


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("bundle", ["compressed", "extreme"])
def test_every_layer_is_as_certified(
    on_arm: OnArm, cpu: str, bundle: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(bundle).bundle.folder
    done = on_arm(cpu, "verify", folder, "--parity")
    assert done.returncode == 0, done.stderr + done.stdout
    for file in ("ort-float32", "ort-float16", "ort-int8", "tflite-float32", "tflite-int8"):
        assert f"{file}: ok" in done.stdout
    layers = re.findall(r"layers: (\d+) of (\d+) as certified", done.stdout)
    assert len(layers) == 2
    assert all(good == every != "0" for good, every in layers)


@pytest.mark.parametrize("artifact", ["ort-int8", "tflite-int8"])
def test_the_runner_answers_as_on_this_machine(
    on_arm: OnArm, compressed: CompressedModel, artifact: str, tmp_path: Path
) -> None:
    (picture,) = (x[0] for x in golden_inputs(compressed.bundle))
    np.save(tmp_path / "input.npy", picture)
    source = ("--input", tmp_path / "input.npy", "--json")
    arguments = ("run", compressed.bundle.folder, "--artifact", artifact, *source)
    answers = []
    for cpu in CPUS:
        done = on_arm(cpu, *arguments)
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout))
    here = subprocess.run(
        [sys.executable, "-m", "edgedl", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert answers == [json.loads(here.stdout)] * 2


def test_the_processor_is_known(on_arm: OnArm) -> None:
    found = [on_arm(cpu, "doctor").stdout for cpu in CPUS]
    assert "machine: Emulated cortex-a72," in found[0]
    assert "int8 instructions: none known" in found[0]
    assert "int8 instructions: asimddp" in found[1]
    assert all("backend ort: ready" in f and "backend tflite: ready" in f for f in found)
