"""A float ONNX file as the subject, from Python and from the command line."""

import numpy as np
import pytest
import torch
from command import assert_one_line
from torch import nn

import edgedl
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.errors import BadInputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a float ONNX file of a batch of one, and samples."""
    made = tmp_path_factory.mktemp("onnx")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)).eval()
    torch.onnx.export(
        net, (torch.zeros(1, 2, 6, 6),), made / "net.onnx", dynamo=False,
        input_names=["image"], output_names=["scores"],
    )  # fmt: skip
    x = np.random.default_rng(0).normal(size=(40, 2, 6, 6)).astype(np.float32)
    np.savez(made / "samples.npz", image=x)
    np.savez(made / "labelled.npz", image=x, y=net(torch.from_numpy(x)).argmax(1).numpy())
    np.savez(made / "wrong.npz", picture=x)
    np.save(made / "shape.npy", x[:, :1])
    return made


@pytest.mark.slow
def test_the_command(folder, tmp_path, edgedl):
    done = edgedl(
        "compress", folder / "net.onnx", "--calibration", folder / "samples.npz",
        "--target", "ort,tflite", "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    manifest = Bundle.open(tmp_path / "out" / "bundle").manifest
    assert manifest.name == "net"
    assert [spec.name for spec in manifest.inputs] == ["image"]
    assert [spec.name for spec in manifest.outputs] == ["scores"]
    assert {"ort-int8", "tflite-int8"} <= {a.name for a in manifest.artifacts}


@pytest.mark.slow
def test_from_python_it_is_what_the_module_gives(folder):
    x = np.load(folder / "labelled.npz")["image"]
    made = edgedl.compress_model(str(folder / "net.onnx"), calibration=x, targets="ort")
    session = made.runner("ort")
    by_data = edgedl.compress_model(
        str(folder / "net.onnx"), data=f"npz:{folder / 'labelled.npz'}", targets="ort"
    )
    assert by_data.result.candidates[0].score.metric == "top1"
    assert by_data.result.candidates[0].score.value == 1.0
    assert session(x[:3])[0].shape == (3, 5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "needs samples to calibrate with"),
        (("--calibration", "samples.npz", "--data", "npz:labelled.npz"), "--data or --calibration"),
        (("--calibration", "missing.npz"), "no calibration samples in 'missing.npz'"),
        (("--calibration", "wrong.npz"), "has picture and the network takes forward(image)"),
        (("--calibration", "shape.npy"), "to have 2 channels"),
        (("--calibration", "samples.npz", "--weights", "net.onnx"), "has its own"),
    ],
)
def test_what_is_missing_or_wrong(folder, edgedl, monkeypatch, tmp_path, options, says):
    monkeypatch.chdir(folder)
    done = edgedl("compress", "net.onnx", *options, "--out", tmp_path / "out")
    assert_one_line(done, 2, says)
    assert not (tmp_path / "out").exists()


def test_a_missing_file(edgedl, tmp_path):
    done = edgedl("compress", "none.onnx", "--calibration", "x.npz", "--out", tmp_path / "out")
    assert_one_line(done, 2, "no file 'none.onnx'")


def test_a_file_without_data_in_python(folder):
    with pytest.raises(BadInputError, match="calibration is None"):
        edgedl.compress_model(str(folder / "net.onnx"))
