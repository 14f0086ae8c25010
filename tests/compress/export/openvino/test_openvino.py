"""Bundles for OpenVINO: which files, and what they compute."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_networks import Net, noise_task
from tiny import make_subject
from torch import nn

from edgedl.compress.pipeline import CompressedModel, compress
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.quantize.weight_only import QuantizeWeights
from edgedl.compress.recipe.recipe import Recipe, keep_float
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, TENSORRT, TFLITE
from edgedl.compress.targets.target import load_target
from edgedl.runtime.runner import Runner
from edgedl.runtime.task.task import ArrayTask, Samples

pytestmark = pytest.mark.slow

OPENVINO = load_target("openvino")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> CompressedModel:
    folder = tmp_path_factory.mktemp("openvino") / "bundle"
    folder.mkdir()
    return compress(make_subject(), load_recipe("static_w8c_a8"), (ORT, OPENVINO), folder)


def test_every_file_runs_and_the_shared_ones_are_there_once(made: CompressedModel) -> None:
    assert not made.refusals or {r.name for r in made.refusals} == {"openvino-bfloat16"}
    paths = {a.name: a.path for a in made.bundle.manifest.artifacts}
    assert paths["openvino-float32"] == paths["ort-float32"] == "float32.onnx"
    assert paths["openvino-int8"] == paths["ort-int8"] == "int8.ort.onnx"
    assert paths.get("openvino-bfloat16", "float32.onnx") == "float32.onnx"


def test_the_certificate_holds_layer_by_layer(made: CompressedModel) -> None:
    parity = made.bundle.artifact("openvino-int8").parity
    assert parity is not None
    assert parity.runtime.startswith("openvino ")
    assert parity.prediction_agreement >= 0.97
    assert parity.layers is not None
    assert parity.layers.not_read is None
    assert max(layer.mean_lsb for layer in parity.layers.layers) < 0.5
    (between,) = made.bundle.manifest.between
    assert {between.first, between.second} == {"ort-int8", "openvino-int8"}
    assert between.prediction_agreement >= 0.97


def test_the_certificates_say_what_computes_in_float(tmp_path: Path) -> None:
    """What turns integers into floats at a file's end is no operator of the network."""
    torch.manual_seed(0)
    net = Net(
        lambda m, x: (m.second(F.silu(m.first(x))), F.relu(m.head(x))),
        first=nn.Conv2d(3, 8, 3, padding=1),
        second=nn.Conv2d(8, 4, 1),
        head=nn.Conv2d(3, 4, 3),
    ).eval()
    recipe = Recipe("static", (QuantizeStatic(samples=8, keep_float=("head",)),))
    targets = (ORT, OPENVINO, TFLITE, TENSORRT)
    bundle = compress(Subject("net", net, noise_task((3, 8, 8))), recipe, targets, tmp_path).bundle
    found = {a.name: a.parity and a.parity.float_operators for a in bundle.manifest.artifacts}
    # The ReLU is part of the convolution's kernel.
    assert found["openvino-int8"] == ("Conv", "Relu")
    assert found["ort-int8"] == ("Conv",)
    assert found["tflite-int8"] == ("CONV_2D",)
    assert found["tensorrt-int8"] is None
    assert found["openvino-float32"] is None


def test_a_layer_kept_float_stays_float(tmp_path: Path) -> None:
    """ONNX Runtime's own operators, which keep such a layer float there, are not in the file."""
    recipe = keep_float(load_recipe("static_w8c_a8"), ("depthwise",))
    bundle = compress(make_subject(), recipe, (ORT, OPENVINO), tmp_path).bundle
    paths = {a.name: a.path for a in bundle.manifest.artifacts}
    assert paths["openvino-int8"] != paths["ort-int8"]
    content = bundle.read(paths["openvino-int8"])
    assert b"com.microsoft" not in content
    assert b"com.microsoft" in bundle.read(paths["ort-int8"])


@pytest.mark.parametrize("bits", [4, 8])
def test_integer_weights_compute_in_float(tmp_path: Path, bits: int) -> None:
    rng = np.random.default_rng(0)

    def split() -> Samples:
        return Samples((rng.normal(size=(40, 64)).astype(np.float32),), np.zeros(40, np.int64))

    task = ArrayTask("noise", {"calibration": split, "test": split}, classes=("a", "b"))
    net = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 2)).eval()
    recipe = Recipe("weights", (QuantizeWeights(bits, 32 if bits == 4 else None),))
    bundle = compress(Subject("linear", net, task), recipe, (OPENVINO,), tmp_path).bundle
    artifact = bundle.artifact(f"openvino-int{bits}_weights")
    # Inputs rounded to int8 would be a hundred times further away.
    assert artifact.parity is not None
    assert artifact.parity.max_abs_error < 1e-5
    with Runner(bundle, artifact) as runner:
        assert runner(rng.normal(size=(3, 64)).astype(np.float32))[0].shape == (3, 2)
