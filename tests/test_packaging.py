"""The two wheels hold what the repository holds, and nothing else lands in site-packages."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import edgedl

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("compress", "models", "runtime", "tools")
# Those rooms, and what is in no wheel.
FOLDERS = (*ROOMS, "benchmarks")
WEIGHTS = ROOT / "models" / "weights"
EMBEDDED = ROOT / "models" / "data" / "embedded"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def source_packages() -> set[str]:
    folders = {p.parent for room in ROOMS for p in files_below(ROOT / room, {".py"})}
    return {"edgedl"} | {
        "edgedl." + ".".join(folder.relative_to(ROOT).parts)
        for folder in folders - {WEIGHTS, EMBEDDED}
    }


def test_every_package_is_listed() -> None:
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == source_packages()


def test_every_package_has_an_init() -> None:
    for room in FOLDERS:
        for path in (ROOT / room).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), path.parent


def test_typings_link_to_every_room() -> None:
    for room in ROOMS:
        assert (ROOT / "typings" / "edgedl" / room).resolve() == (ROOT / room).resolve()


def test_base_install_is_small() -> None:
    names = {d.split(">")[0] for d in PROJECT["project"]["dependencies"]}
    assert names == {"numpy", "click", "msgspec"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree without what is in no wheel; a build leaves nothing in the repository itself."""
    folder = tmp_path_factory.mktemp("sources")
    left = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    for name in (*ROOMS, "src"):
        shutil.copytree(ROOT / name, folder / name, ignore=left)
    for path in (*ROOT.glob("*.toml"), *ROOT.glob("*.md"), ROOT / "LICENSE"):
        shutil.copy(path, folder)
    return folder


def built(project: Path, out: Path) -> tuple[set[str], float]:
    """Build a wheel and return the names in it and its megabytes."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, project]
    done = subprocess.run([str(c) for c in build], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist()), wheel.stat().st_size / 1e6


def files_below(folder: Path, suffixes: set[str]) -> set[Path]:
    left = {"__pycache__", "build", "edgedl_models.egg-info"}
    return {p for p in folder.rglob("*") if p.suffix in suffixes and not left & set(p.parts)}


@pytest.mark.slow
def test_the_wheel_of_code(sources: Path, tmp_path: Path) -> None:
    names, megabytes = built(sources, tmp_path)
    tops = {name.split("/")[0] for name in names}
    assert tops == {"edgedl", f"edgedl-{edgedl.__version__}.dist-info"}
    code = {".py", ".yaml", ".j2", ".css", ".txt"}
    expected = {
        "edgedl/" + path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in files_below(ROOT / room, code)
        if not path.is_relative_to(WEIGHTS) and not path.is_relative_to(EMBEDDED)
    }
    assert expected - names == set()
    assert not [n for n in names if n.endswith((".safetensors", ".npz"))]
    assert not [n for n in names if {"benchmarks", "tests", "weights"} & set(n.split("/"))]
    assert megabytes < 2


@pytest.mark.slow
def test_the_wheel_of_weights_and_data(sources: Path, tmp_path: Path) -> None:
    names, megabytes = built(sources / "models", tmp_path)
    tops = {name.split("/")[0] for name in names}
    info = f"edgedl_models-{edgedl.__version__}.dist-info"
    assert tops == {"edgedl_models", info}
    data = {".npz", ".safetensors", ".json", ".txt", ".md", ".py"}
    expected = {
        f"edgedl_models/{package}/{path.name}"
        for package, home in (("weights", WEIGHTS), ("embedded", EMBEDDED))
        for path in files_below(home, data)
    }
    assert {n for n in names if not n.startswith(info)} == expected
    assert f"{info}/licenses/LICENSE" in names
    assert f"{info}/licenses/data/embedded/LICENSE-fashion-mnist.txt" in names
    assert 20 < megabytes < 40


def test_both_wheels_have_one_version_and_one_licence() -> None:
    assert PROJECT["project"]["optional-dependencies"]["models"] == [
        f"edgedl-models=={edgedl.__version__}"
    ]
    assert "models" in PROJECT["project"]["optional-dependencies"]["all"][0]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == edgedl.__version__
    assert (ROOT / "models/LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_files_stay_small_and_have_names_of_their_own() -> None:
    for room in FOLDERS:
        for path in (ROOT / room).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 300, path
            assert path.stem not in {"utils", "helpers", "common", "misc", "core"}, path
