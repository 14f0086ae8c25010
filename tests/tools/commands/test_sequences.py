"""A recurrent network from its Subject to labels of the rows of a CSV file."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command import Run
from torch import nn

from edgedl.compress.pipeline import CompressedModel, compress
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, TENSORRT, TFLITE
from edgedl.runtime.preprocess.sequence import SequencePreprocessing
from edgedl.runtime.runner import Runner
from edgedl.runtime.task.task import ArrayTask, Samples

pytestmark = pytest.mark.slow

CUT = SequencePreprocessing(("x", "y", "z"), window=8, hop=4, rate_hz=50.0)
CLASSES = ("walk", "run")


class Tiny(nn.Module):
    """[N, T, 3] -> [N, 2] through an LSTM of four units."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.lstm(x)[0].mean(1))


def samples(count: int, seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, CUT.window, 3)).astype(np.float32)
    return Samples((x,), (x.mean((1, 2)) > 0).astype(np.int64))


def make_net() -> Tiny:
    torch.manual_seed(0)
    return Tiny().eval()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> CompressedModel:
    task = ArrayTask(
        name="steps",
        splits={"calibration": lambda: samples(32, 1), "test": lambda: samples(100, 2)},
        classes=CLASSES,
        preprocessing=CUT,
    )
    subject = Subject("tiny-lstm", make_net(), task, free_axes=(0, 1))
    return compress(subject, None, (ORT, TFLITE, TENSORRT), tmp_path_factory.mktemp("lstm"))


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(17, 3)).astype(np.float32)


@pytest.fixture
def csv_file(tmp_path: Path, rows: np.ndarray) -> Path:
    path = tmp_path / "walk.csv"
    lines = [f"{i},{x!r},{y!r},{z!r}" for i, (x, y, z) in enumerate(rows.tolist())]
    path.write_text("n,x,y,z\n" + "\n".join(lines) + "\n")
    return path


def test_default_recipe_makes_dynamic_int8_and_names_what_refuses_it(made: CompressedModel) -> None:
    manifest = made.bundle.manifest
    assert [h.stage for h in manifest.history] == ["quantize_dynamic"]
    names = {a.name for a in manifest.artifacts}
    for name in ("float32", "float16", "dynamic_int8"):
        assert {f"ort-{name}", f"tflite-{name}"} <= names
    reasons = {refusal.name: refusal.reason for refusal in made.refusals}
    assert "TensorRT has no dynamic quantization" in reasons.pop("tensorrt-dynamic_int8")
    assert set(reasons) == {"ort-int8", "tflite-int8", "tensorrt-int8"}
    for reason in reasons.values():
        assert reason.startswith("not made: the default recipe is dynamic_w8_afp32, as the network")


def test_lengths_are_free_on_onnx_runtime_and_fixed_on_tflite(made: CompressedModel) -> None:
    manifest = made.bundle.manifest
    assert manifest.inputs[0].shape == (None, None, 3)
    shapes = {a.name: a.inputs[0].shape for a in manifest.artifacts}
    assert shapes["ort-dynamic_int8"] == (None, None, 3)
    assert shapes["tflite-float32"] == (1, CUT.window, 3)


@pytest.mark.parametrize(
    ("artifact", "tolerance"),
    [("ort-float32", 1e-5), ("tflite-float32", 1e-5), ("ort-dynamic_int8", 0.05),
     ("tflite-dynamic_int8", 0.05), ("ort-float16", 5e-3)],
)  # fmt: skip
def test_rows_of_a_csv_file_become_labels_of_windows(
    edgedl: Run,
    made: CompressedModel,
    csv_file: Path,
    rows: np.ndarray,
    artifact: str,
    tolerance: float,
) -> None:
    done = edgedl("run", made.bundle.folder, "--input", csv_file, "--artifact", artifact, "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    places = ["rows 1 to 8", "rows 5 to 12", "rows 9 to 16"]
    assert [line["source"] for line in lines] == [f"{csv_file} {place}" for place in places]
    windows = torch.from_numpy(np.stack([rows[i : i + 8] for i in (0, 4, 8)]))
    with torch.no_grad():
        expected = make_net()(windows).numpy()
    found = np.array([next(iter(line["outputs"].values())) for line in lines])
    np.testing.assert_allclose(found, expected, atol=tolerance)
    best = [CLASSES[i] for i in found.argmax(1)]
    assert [line["classes"][0]["name"] for line in lines] == best


def test_text_shows_label_and_probability(
    edgedl: Run, made: CompressedModel, csv_file: Path
) -> None:
    done = edgedl("run", made.bundle.folder, "--input", csv_file, "--backend", "ort")
    first = done.stdout.splitlines()[0]
    assert "rows 1 to 8: " in first
    assert "walk" in first
    assert " %" in first


def test_short_recording_runs_where_the_length_is_free(
    edgedl: Run, made: CompressedModel, tmp_path: Path
) -> None:
    (tmp_path / "short.csv").write_text("x,y,z\n1,2,3\n4,5,6\n")
    arguments = ["run", made.bundle.folder, "--input", tmp_path / "short.csv", "--artifact"]
    assert "rows 1 to 2" in edgedl(*arguments, "ort-float32").stdout
    refused = edgedl(*arguments, "tflite-float32")
    assert refused.returncode == 2
    assert "takes inputs of size 8 along axis 1, got 2" in refused.stderr


def test_missing_column_is_one_line(edgedl: Run, made: CompressedModel, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("x,z\n1,2\n")
    done = edgedl("run", made.bundle.folder, "--input", tmp_path / "bad.csv")
    assert done.returncode == 2
    assert "no column 'y'" in done.stderr.splitlines()[-1]


def test_every_length_on_onnx_runtime(made: CompressedModel) -> None:
    net = make_net()
    with Runner.open(made.bundle.folder, "ort-float32") as runner:
        for shape in [(1, 1, 3), (4, 3, 3), (2, 50, 3)]:
            x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
            with torch.no_grad():
                np.testing.assert_allclose(runner(x.numpy())[0], net(x).numpy(), atol=1e-5)
