"""A network of two layers, whose weights are written here, through the whole comparison."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.real_networks.compare import compare, decibels
from benchmarks.real_networks.network import Made, RealNetwork, fidelity
from benchmarks.real_networks.run import about, table
from benchmarks.real_networks.shelf import PackageShelf
from edgedl.models.data.packages import Package


def make(weights: Path, shelf: PackageShelf) -> Made:
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    net.load_state_dict(torch.load(weights, weights_only=True))
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal((64, 8)).astype(np.float32) for _ in range(2))
    return Made(net, (first,), (second,))


@pytest.fixture
def network(tmp_path: Path) -> RealNetwork:
    torch.manual_seed(0)
    folder = tmp_path / "packages" / "tiny-1.0"
    folder.mkdir(parents=True)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    torch.save(net.state_dict(), folder / "net.pt")
    digest = hashlib.sha256((folder / "net.pt").read_bytes()).hexdigest()
    package = Package("pip", "tiny", "1.0", "0" * 64)
    return RealNetwork(
        "tiny", "tabular", package, "MIT", "net.pt", digest, "noise", make, classifies=True
    )


@pytest.mark.slow
def test_every_file_is_held_against_the_float_network(network: RealNetwork, tmp_path: Path) -> None:
    made = network.made(PackageShelf(tmp_path / "packages"))
    (tmp_path / "bundle").mkdir()
    rows = compare(network, made, tmp_path / "bundle")
    files = {row.name: row for row in rows.files}
    assert {"ort-int8", "tflite-int8", "openvino-int8"} <= set(files)
    assert {"ort-own-static", "ort-own-dynamic", "tflite-own-static"} <= set(files)
    for name, row in files.items():
        if not row.refused:
            assert row.whole_db is not None
            assert row.whole_db > (90 if name.endswith("float32") else 25), name
            assert row.agreement is not None
            assert row.agreement > 0.9
    shown = table(rows, timed=False)
    assert "ort-int8" in [cells[1] for cells in shown]
    assert not any("float32" in cells[1] for cells in shown)
    assert about(network)[:3] == ["tiny", "tabular", "PyPI tiny 1.0"]


def test_what_edgedl_refuses_is_a_row(network: RealNetwork, tmp_path: Path) -> None:
    made = network.made(PackageShelf(tmp_path / "packages"))
    endless = Made(made.module, (made.calibration[0] * np.inf,), made.test)
    (tmp_path / "bundle").mkdir()
    rows = compare(network, endless, tmp_path / "bundle")
    assert not rows.files
    assert "not finite" in rows.said
    assert len(table(rows, timed=True)[0]) == len(table(rows, timed=False)[0]) + 1


def test_fidelity_and_decibels_say_the_same() -> None:
    wanted = np.random.default_rng(0).standard_normal((1, 50))
    found = wanted + 0.1
    (score,) = fidelity([found[:, :20], found[:, 20:]], wanted)
    assert score == pytest.approx(1 / (1 + 10 ** (-decibels(found, wanted) / 10)))
    assert fidelity([wanted], wanted).tolist() == [1.0]
