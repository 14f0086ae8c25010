"""What is known of files is kept by all that an answer depends on, and only so much of it."""

import os
from pathlib import Path

import msgspec
import pytest

from edgedl.compress.pipeline import CompressedModel
from edgedl.runtime import known_files
from edgedl.runtime.backends.runtimes import open_backend
from edgedl.runtime.bundle.manifest import FileRecord
from edgedl.runtime.known_files import FileKey, Known, KnownFiles


@pytest.fixture
def key(compressed: CompressedModel) -> FileKey:
    return FileKey.of(
        compressed.bundle, compressed.bundle.artifact("ort-int8"), open_backend("ort")
    )


@pytest.mark.parametrize(
    "change",
    [
        {"name": "another"},
        {"file": FileRecord(1, "0" * 64)},
        {"golden": None},
        {"inputs": ()},
        {"outputs": ()},
        {"tolerances": (1.0,)},
        {"runtime": "ONNX Runtime: onnxruntime 99"},
        {"isa": ("another",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_key_is_another_file(
    tmp_path: Path, key: FileKey, change: dict[str, object]
) -> None:
    files = KnownFiles(tmp_path / "known")
    files.keep(key, Known("a little"))
    assert files.find(key) == Known("a little")
    assert files.find(msgspec.structs.replace(key, **change)) is None


def test_a_damaged_entry_is_none(tmp_path: Path, key: FileKey) -> None:
    files = KnownFiles(tmp_path / "known")
    files.keep(key, Known(""))
    (path,) = (tmp_path / "known").iterdir()
    path.write_bytes(b"{")
    assert files.find(key) is None


def test_the_oldest_go_whatever_the_clock_says(
    tmp_path: Path, key: FileKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_files, "MOST", 3)
    files = KnownFiles(tmp_path / "known")
    keys = [msgspec.structs.replace(key, isa=(str(i),)) for i in range(5)]
    for each in keys[:4]:
        files.keep(each, Known(""))
    assert [files.find(each) is not None for each in keys[:4]] == [False, True, True, True]
    # The clock was set back: what is there seems to be from the future, and the new one the oldest.
    for path in (tmp_path / "known").iterdir():
        os.utime(path, (2**33, 2**33))
    (tmp_path / "known" / "a file of the user's").touch()
    files.keep(keys[4], Known(""))
    assert (tmp_path / "known" / "a file of the user's").exists()
    assert sum(files.find(each) is not None for each in keys) == 3


def test_a_user_without_a_home_keeps_nothing(key: FileKey, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CACHE_HOME", known_files.PLACE):
        monkeypatch.delenv(name, raising=False)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    files = KnownFiles.of_user()
    files.keep(key, Known(""))
    assert files.find(key) is None
