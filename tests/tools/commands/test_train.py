"""``edgedl train``: weights, record and curve; a second call goes on; what diverges says so."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import Run
from PIL import Image

from edgedl.compress.training.processes import OneProcess
from edgedl.models.data.datasets import cached_path
from edgedl.models.data.recordings import Recordings, write_recordings
from edgedl.models.reference import table as reference
from edgedl.models.reference.pretrained import build, load_weights
from edgedl.models.reference.table import REFERENCE_MODELS
from edgedl.runtime.errors import BadInputError
from edgedl.tools.jobs.reference_training import ReferenceTraining, storable


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small set in the place of the smart-watch recordings."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def split(count: int, seed: int) -> Recordings:
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 7, count)
        waves = [
            np.sin(np.arange(150)[:, None] * (1 + label) / 20 + np.arange(6)) for label in labels
        ]
        return Recordings(
            np.concatenate(waves).astype(np.float32),
            np.full(count, 150, np.int64),
            labels,
            np.ones(count, np.int64),
        )

    write_recordings(cached_path("watch"), {"train": split(40, 0), "test": split(14, 1)})


def train(edgedl: Run, folder: Path, *more: object) -> str:
    done = edgedl("train", "gru-watch", "--out", folder, "--threads", 1, "--epochs", 2, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_writes_weights_record_and_curve(edgedl: Run, watch: None, tmp_path: Path) -> None:
    assert "% top1 on 28 test samples" in train(edgedl, tmp_path / "run")
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert names == {
        "checkpoint.pt", "gru-watch.json", "gru-watch.safetensors", "learning_curve.png",
    }  # fmt: skip
    content = (tmp_path / "run" / "gru-watch.safetensors").read_bytes()
    load_weights(build(REFERENCE_MODELS["gru-watch"]), content, "trained")
    with Image.open(tmp_path / "run" / "learning_curve.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5


@pytest.mark.slow
def test_same_seed_same_weights_and_other_settings_are_refused(
    edgedl: Run, watch: None, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        train(edgedl, tmp_path / name)
    one, two = (tmp_path / n / "gru-watch.safetensors" for n in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    other = edgedl("train", "gru-watch", "--out", tmp_path / "one", "--epochs", 3, "--threads", 1)
    assert other.returncode == 2
    assert "other settings" in other.stderr


@pytest.mark.slow
def test_the_cpu_can_be_named(edgedl: Run, watch: None, tmp_path: Path) -> None:
    train(edgedl, tmp_path / "one")
    train(edgedl, tmp_path / "two", "--device", "cpu")
    one, two = (tmp_path / n / "gru-watch.safetensors" for n in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_several_processes_are_for_the_cpu(refused: Any, tmp_path: Path) -> None:
    class Two(OneProcess):
        count = 2

    model = REFERENCE_MODELS["gru-watch"]
    with refused(BadInputError, "leave --device cuda out"):
        ReferenceTraining(model, tmp_path, 0, 1, Two(), torch.device("cuda"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="torchrun wants gloo and a shell")
def test_two_processes_of_torchrun_train_and_one_writes(
    edgedl: Run, watch: None, tmp_path: Path
) -> None:
    pytest.importorskip("accelerate")
    train(edgedl, tmp_path / "one")
    two = tmp_path / "two"
    arguments = ["train", "gru-watch", "--out", two, "--threads", 1, "--epochs", 2]
    started = ["torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m", "edgedl"]
    command = [sys.executable, "-m", *started, *arguments]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("% top1 on 28 test samples") == 1
    assert done.stderr.count("epoch 2/2") == 1
    assert sorted(p.name for p in two.iterdir()) == sorted(
        p.name for p in (tmp_path / "one").iterdir()
    )
    # Its batch norm and dropout see shares, so that the weights are only much like those of one
    # process; networks without are compared in tests/compress/test_data_parallel.py.
    content = (two / "gru-watch.safetensors").read_bytes()
    load_weights(build(REFERENCE_MODELS["gru-watch"]), content, "trained")
    record = json.loads((two / "gru-watch.json").read_text())
    assert record["command"].startswith("torchrun --nproc-per-node 2 -m edgedl train gru-watch")


def test_divergence_stops_and_says_so(
    edgedl: Run, watch: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = REFERENCE_MODELS["gru-watch"]
    wild = replace(model, plan=replace(model.plan, max_learning_rate=1e30, max_gradient_norm=None))
    monkeypatch.setitem(reference.REFERENCE_MODELS, "gru-watch", wild)
    done = edgedl("train", "gru-watch", "--out", tmp_path / "run", "--epochs", 3, "--threads", 1)
    assert done.returncode == 3
    assert "lower the learning rate" in done.stderr


def test_unknown_model(edgedl: Run, tmp_path: Path) -> None:
    done = edgedl("train", "no-such-model", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "unknown model" in done.stderr
    assert not (tmp_path / "run").exists()


def test_large_networks_are_stored_in_half() -> None:
    state = storable(torch.nn.Sequential(torch.nn.Linear(2000, 600), torch.nn.BatchNorm1d(600)))
    assert {k: v.dtype for k, v in state.items()} == {
        "0.weight": torch.float16, "0.bias": torch.float32, "1.weight": torch.float32,
        "1.bias": torch.float32, "1.running_mean": torch.float32, "1.running_var": torch.float32,
        "1.num_batches_tracked": torch.int64,
    }  # fmt: skip
    small = storable(torch.nn.Linear(10, 10))
    assert {v.dtype for v in small.values()} == {torch.float32}
