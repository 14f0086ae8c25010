"""The wheel holds what the repository holds, and nothing else lands in site-packages."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("compress", "models", "runtime", "tools")
# Those rooms, and what is in no wheel.
FOLDERS = (*ROOMS, "benchmarks")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def source_packages() -> set[str]:
    folders = {p.parent for room in ROOMS for p in (ROOT / room).rglob("*.py")}
    return {"edgedl"} | {
        "edgedl." + ".".join(folder.relative_to(ROOT).parts)
        for folder in folders
        if "__pycache__" not in folder.parts
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


def test_wheel_content(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        tmp_path,
        ROOT,
    ]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    tops = {name.split("/")[0] for name in names}
    assert all(top == "edgedl" or top.endswith(".dist-info") for top in tops), tops
    suffixes = {".py", ".yaml", ".npz", ".safetensors", ".json", ".j2", ".css", ".txt"}
    expected = {
        "edgedl/" + path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.suffix in suffixes and "__pycache__" not in path.parts
    }
    assert not expected - names


def test_files_stay_small_and_have_names_of_their_own() -> None:
    for room in FOLDERS:
        for path in (ROOT / room).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 300, path
            assert path.stem not in {"utils", "helpers", "common", "misc", "core"}, path
