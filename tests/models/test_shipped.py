"""Weights and data come from edgedl-models, and what to do without it is said."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgedl.models.shipped import shipped
from edgedl.runtime.install import install_line

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("folder", "home"), [("weights", "models/weights"), ("embedded", "models/data/embedded")]
)
def test_what_ships_is_what_the_repository_has(folder, home):
    names = {p.name for p in (ROOT / home).iterdir() if p.suffix in {".json", ".npz", ".md"}}
    found = {p.name: p.read_bytes() for p in shipped(folder).iterdir()}
    assert names <= set(found)
    assert all(found[name] == (ROOT / home / name).read_bytes() for name in names)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [["models", "show", "resnet8-cifar10"], ["compress", "resnet8-fashion_mnist", "--out", "x"]],
)
def test_without_the_wheel(tmp_path, arguments):
    code = (
        "import sys\nsys.modules['edgedl_models'] = None\n"
        "from edgedl.tools.cli import main\nmain(sys.argv[1:])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 4, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("edgedl: edgedl-models is missing")
    assert line.endswith(install_line("models"))
    assert not (tmp_path / "x").exists()


def test_data_sets_are_listed_without_the_wheel(monkeypatch):
    code = "import sys\nsys.modules['edgedl_models'] = None\nimport edgedl.models.data.datasets"
    subprocess.run([sys.executable, "-c", code], check=True)
