"""The line that installs an extra fits where edgedl came from: distributions as pip leaves them."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edgedl.runtime.install import install_line

METADATA = "Metadata-Version: 2.1\nName: edgedl\nVersion: 0.0.0\n"


def installed(site: Path, origin: dict[str, Any] | None) -> None:
    """Write what an installer leaves of edgedl."""
    info = site / "edgedl-0.0.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(METADATA)
    (info / "RECORD").write_text("")
    if origin is not None:
        (info / "direct_url.json").write_text(json.dumps(origin))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_a_wheel_from_a_folder(site: Path, tmp_path: Path) -> None:
    """Made and installed by pip itself."""
    folder = tmp_path / "wheels here"
    folder.mkdir()
    wheel = folder / "edgedl-0.0.0-py3-none-any.whl"
    info = "edgedl-0.0.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: edgedl\nVersion: 0.0.0\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any"
        )
        file.writestr(f"{info}/RECORD", "")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        site,
    ]
    subprocess.run([*pip, wheel], check=True)
    assert install_line("ort") == f"pip install --find-links '{folder}' 'edgedl[ort]'"
    assert install_line("models") == f"pip install --find-links '{folder}' 'edgedl[models]'"


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("ort", "pip install -e '{0}[ort]'"),
        ("models", "pip install -e {0}/models"),
        ("all", "pip install -e {0}/models -e '{0}[all]'"),
    ],
)
def test_an_editable_tree(site: Path, tmp_path: Path, extra: str, expected: str) -> None:
    installed(site, {"url": tmp_path.as_uri(), "dir_info": {"editable": True}})
    assert install_line(extra) == expected.format(tmp_path)


def test_what_a_build_leaves_in_the_tree_is_no_installation(site: Path, tmp_path: Path) -> None:
    installed(site, {"url": tmp_path.as_uri(), "dir_info": {"editable": True}})
    left = tmp_path / "tree" / "edgedl.egg-info"
    left.mkdir(parents=True)
    (left / "PKG-INFO").write_text(METADATA)
    sys.path.insert(0, str(left.parent))
    try:
        assert install_line("ort") == f"pip install -e '{tmp_path}[ort]'"
    finally:
        sys.path.remove(str(left.parent))


def test_a_tree_that_was_copied(site: Path, tmp_path: Path) -> None:
    installed(site, {"url": tmp_path.as_uri(), "dir_info": {}})
    assert install_line("ort") == f"pip install '{tmp_path}[ort]'"


@pytest.mark.parametrize(
    "origin",
    [
        None,
        {},
        {"url": "https://example.org/edgedl.whl", "archive_info": {}},
        {"url": "file:///no/such/folder/edgedl.whl", "archive_info": {}},
    ],
)
def test_an_origin_that_is_not_known(site: Path, origin: dict[str, Any] | None) -> None:
    installed(site, origin)
    assert install_line("ort") == (
        "pip install 'edgedl[ort]' (add --find-links FOLDER if edgedl came from wheels in a folder)"
    )


def test_broken_metadata_is_an_unknown_origin(site: Path) -> None:
    installed(site, None)
    (site / "edgedl-0.0.0.dist-info" / "direct_url.json").write_text("{")
    assert install_line("ort").startswith("pip install 'edgedl[ort]'")
