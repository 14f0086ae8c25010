"""Files that are fed normalised inputs: smaller, and in the runner what the others are."""

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from file_readers import TFLiteFile
from small_networks import Net, noise
from tiny import make_subject, pictures
from torch import nn

from edgedl.compress.artifacts.build import ArtifactBuilder, Refusal
from edgedl.compress.export.outside import Outside
from edgedl.compress.pipeline import compress
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.recipe.recipe import Recipe
from edgedl.compress.state import begin
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.target import Target, load_target
from edgedl.runtime.precision import FLOAT32, INT8
from edgedl.runtime.runner import Runner
from edgedl.runtime.tensors import encode

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def subject() -> Subject:
    whole = make_subject()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    net = Net(
        lambda net, x: net.inner((x - net.mean) / net.std),
        mean=nn.Buffer(mean),
        std=nn.Buffer(std),
        inner=whole.module,
    )
    return Subject("normalised", net.eval(), whole.task)


def outside(name: str) -> Target:
    return msgspec.structs.replace(load_target(name), input_norms="outside")


@pytest.mark.slow
def test_the_runner_takes_what_the_network_takes(tmp_path: Path) -> None:
    given = subject()
    recipe = Recipe("int8", (QuantizeStatic(samples=64),))
    bundles = {}
    for where, name in (("inside", load_target), ("outside", outside)):
        (folder := tmp_path / where).mkdir()
        targets = tuple(name(t) for t in ("ort", "openvino", "tflite", "tensorrt"))
        made = compress(given, recipe, targets, folder, only=(FLOAT32, INT8))
        assert not made.refusals
        bundles[where] = made
    assert any("mean [0.4, 0.5, 0.6]" in warning for warning in bundles["outside"].warnings)
    x = pictures(16, 5).inputs[0]
    x = np.ascontiguousarray(x.transpose(0, 3, 1, 2), np.float32) / 255
    for artifact in bundles["outside"].bundle.manifest.artifacts:
        (spec,) = artifact.inputs
        assert (spec.mean, spec.std) == (pytest.approx(MEAN), pytest.approx(STD))
        assert (artifact.parity.outputs[0].float32_sqnr_db or 99) > 20
        if artifact.backend == "tensorrt":
            continue
        found, expected = (
            Runner(made.bundle, made.bundle.artifact(artifact.name))(x)[0]
            for made in (bundles["outside"], bundles["inside"])
        )
        off = np.abs(found - expected).max() / np.abs(expected).max()
        assert off < (1e-5 if artifact.precision == "float32" else 0.1)


@pytest.mark.slow
def test_the_files_do_not_normalise() -> None:
    given = subject()
    state = QuantizeStatic(samples=64).apply(begin(given))
    builder = ArtifactBuilder(state, reference=False, only=(FLOAT32, INT8))
    built = list(builder.build((outside("ort"), outside("tflite"))))
    assert not any(isinstance(item, Refusal) for item in built)
    x = np.asarray(noise(1, 3, 12, 12).abs())
    for item in built:
        (spec,) = item.artifact.inputs
        if item.artifact.backend == "ort":
            first = onnx.load_from_string(item.content).graph.node[0].op_type
            assert first == {"float32": "Conv", "int8": "QuantizeLinear"}[item.artifact.precision]
            continue
        assert spec.dtype == item.artifact.precision
        by_hand = (x - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
        if spec.dtype == "float32":
            (found,) = TFLiteFile(item.content).run((encode(x, spec),))
            (wanted,) = (y.detach().numpy() for y in (given.module(noise(1, 3, 12, 12).abs()),))
            np.testing.assert_allclose(found, wanted, atol=1e-4)
            moved = np.moveaxis(by_hand, 1, -1)
            np.testing.assert_allclose(encode(x, spec), moved, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_reference_and_a_file_without_the_norm_are_two_files(tmp_path: Path) -> None:
    recipe = Recipe("float", ())
    made = compress(subject(), recipe, (outside("openvino"),), tmp_path, only=(FLOAT32,))
    files = {a.name: a for a in made.bundle.manifest.artifacts}
    assert not made.refusals
    assert files["ort-float32"].path == "float32.onnx"
    assert files["openvino-float32"].path == "float32.openvino.onnx"
    assert (files["ort-float32"].inputs[0].mean, files["openvino-float32"].inputs[0].mean) == (
        (),
        pytest.approx(MEAN),
    )


def test_a_network_without_a_normalisation_says_so() -> None:
    found = Outside.of(begin(make_subject()))
    assert found.norms == (None,)
    assert "no file was changed" in found.describe()
