"""A module and the name of its data, from Python and from the command line."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from command import assert_one_line
from PIL import Image
from torch import nn

import edgedl
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.preprocess.image import ImagePreprocessing
from edgedl.tools.jobs.named_data import subject_of
from edgedl.tools.jobs.subjects import find_task

CODE = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))

def number():
    return 3
"""


@pytest.fixture
def table(tmp_path) -> Path:
    x = np.random.default_rng(0).normal(size=(60, 2)).round(3)
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["a", "b", "y"], *np.c_[x, x.sum(1)].tolist()])
    return tmp_path / "t.csv"


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, shade in (("dark", 40), ("light", 200)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(15):
            random = np.random.default_rng(100 * shade + number)
            pixels = (random.integers(-30, 30, (8, 8, 3)) + shade).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    return tmp_path / "pictures"


def test_pictures_give_classes_score_and_preprocessing(folder) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    task = subject_of(net, f"imagefolder:{folder}?size=8").task
    assert (task.metric, task.classes) == ("top1", ("dark", "light"))
    assert isinstance(task.preprocessing, ImagePreprocessing)
    assert set(task.splits) == {"train", "calibration", "selection", "test"}
    assert sum(len(b.labels) for b in task.batches("test", 4)) == 6


def test_classes_that_the_network_has_not(folder) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(BadInputError, match="2 classes are named, the network has 3"):
        subject_of(net, f"imagefolder:{folder}?size=8")


@pytest.mark.slow
def test_a_table_in_three_lines(table) -> None:
    torch.manual_seed(0)
    made = edgedl.compress_model(nn.Linear(2, 1), data=f"csv:{table}?target=y", targets="ort")
    assert made.result.candidates[0].score.metric == "r2"
    assert any("'y' is predicted" in note for note in made.result.recommendation.notes)


def test_data_twice(table) -> None:
    x = np.zeros((4, 2), np.float32)
    with pytest.raises(BadInputError, match="leave out others"):
        edgedl.compress_model(nn.Linear(2, 1), x, data=f"csv:{table}?target=y")


@pytest.mark.slow
def test_the_command_takes_a_module_and_a_folder(folder, tmp_path, edgedl, monkeypatch) -> None:
    (tmp_path / "mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    data = ("--data", f"imagefolder:{folder}?size=8")
    done = edgedl("compress", "mine.py:net", *data, "--target", "ort", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "not normalised" in done.stdout
    shown = edgedl("run", "out", "--input", folder / "dark")
    assert "dark" in shown.stdout
    again = edgedl("bench", "out", "--task", data[1], "--threads", "1", "--out", "again")
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("subject", "data", "says"),
    [
        ("mine.py:net", None, "name its data, --data"),
        ("mine.py:net", "imagefoldr:x", "did you mean 'imagefolder'"),
        ("mine.py:number", None, "returned int"),
        ("resnet8-cifar10", "npz:x.npz", "has its own data"),
    ],
)
def test_what_does_not_go_together(tmp_path, edgedl, monkeypatch, subject, data, says) -> None:
    (tmp_path / "mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    options = () if data is None else ("--data", data)
    assert_one_line(edgedl("compress", subject, *options, "--out", "out"), 2, says)
    assert not (tmp_path / "out").exists()


def test_a_bundle_is_scored_on_named_data(table) -> None:
    task = find_task("unknown", f"csv:{table}?target=y")
    assert (task.name, task.metric) == ("t", "r2")
