"""Engines are kept by all that they depend on, and loaded only from the user's own folder."""

import hashlib
import os
from pathlib import Path

import msgspec
import pytest

from edgedl.runtime.errors import BadInputError, IntegrityError
from edgedl.runtime.gpu import Gpu
from edgedl.runtime.tensorrt.build import BuildSettings, Built
from edgedl.runtime.tensorrt.cache import RECORD, EngineCache, EngineKey, kept_or_built

GPU = Gpu("Orin", "8.7", "CUDA 12.6")
SETTINGS = BuildSettings("tensorrt")
BUILT = Built(b"engine", b"times", ("softmax",))
MODEL = b"model"
KEY = EngineKey.of(MODEL, "10.3.0", GPU, SETTINGS)
ENGINE = f"{hashlib.sha256(BUILT.engine).hexdigest()}.plan"


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


@pytest.fixture
def place(cache: EngineCache) -> Path:
    """The folder of a kept engine."""
    cache.keep(KEY, BUILT)
    return cache.folder / KEY.digest


def test_what_was_kept_is_loaded(cache: EngineCache) -> None:
    assert cache.load(KEY) is None
    cache.keep(KEY, BUILT)
    found = cache.load(KEY)
    assert found == Built(b"engine", b"", ("softmax",))
    assert cache.timings(KEY) == b"times"
    assert cache.folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (EngineKey.of(MODEL, "10.16.1", GPU, SETTINGS), "tensorrt version was 10.3.0, is 10.16.1"),
        (
            EngineKey.of(MODEL, "10.3.0", Gpu("Thor", "11.0", "CUDA 13.0"), SETTINGS),
            "gpu was Orin, is Thor; compute capability was 8.7, is 11.0; driver was CUDA 12.6, is "
            "CUDA 13.0",
        ),
        (
            EngineKey.of(MODEL, "10.3.0", GPU, BuildSettings("tensorrt", sparse=True)),
            "other settings",
        ),
        (EngineKey.of(b"another", "10.3.0", GPU, SETTINGS), "was not compiled here yet"),
    ],
)
def test_an_engine_of_something_else_is_built_again_and_the_reason_said(
    cache: EngineCache, other: EngineKey, why: str
) -> None:
    cache.keep(KEY, BUILT)
    said: list[str] = []
    times: list[bytes] = []

    def build(timings: bytes) -> Built:
        times.append(timings)
        return Built(b"new")

    assert kept_or_built(cache, other, build, said.append).engine == b"new"
    assert len(said) == 1
    assert why in said[0]
    assert times == [b"times" if (other.version, other.gpu) == ("10.3.0", "Orin") else b""]
    # The next time it is there, and so is the first.
    assert kept_or_built(cache, other, build, said.append).engine == b"new"
    assert len(said) == len(times) == 1
    assert cache.load(KEY) is not None


@pytest.mark.parametrize("name", [ENGINE, RECORD, "."])
def test_what_others_can_write_is_not_loaded(
    cache: EngineCache, place: Path, name: str, refused
) -> None:
    (place / name).chmod(0o777)
    with refused(IntegrityError, "others than you can write"):
        cache.load(KEY)


def test_a_folder_that_others_can_write_is_not_loaded_from(
    cache: EngineCache, place: Path, refused
) -> None:
    cache.folder.chmod(0o777)
    with refused(IntegrityError, "others than you can write"):
        cache.load(KEY)


def test_links_are_not_followed(cache: EngineCache, place: Path, tmp_path: Path, refused) -> None:
    elsewhere = tmp_path / "elsewhere"
    (place / ENGINE).rename(elsewhere)
    (place / ENGINE).symlink_to(elsewhere)
    with refused(IntegrityError, "is a link"):
        cache.load(KEY)


def test_a_changed_engine_is_not_loaded(cache: EngineCache, place: Path, refused) -> None:
    (place / ENGINE).write_bytes(b"Engine")
    with refused(IntegrityError, "changed or damaged"):
        cache.load(KEY)


def test_the_engine_of_another_key_is_not_loaded(cache: EngineCache, place: Path, refused) -> None:
    other = EngineKey.of(b"another", "10.3.0", GPU, SETTINGS)
    place.rename(cache.folder / other.digest)
    with refused(IntegrityError, "changed or damaged"):
        cache.load(other)


def test_a_damaged_record_is_said_so(cache: EngineCache, place: Path, refused) -> None:
    (place / RECORD).write_text("{}")
    with refused(IntegrityError, "damaged"):
        cache.load(KEY)
    # It does not hide other engines of the file.
    assert "not compiled here yet" in cache.why_not(KEY)


def test_what_a_killed_run_leaves_is_no_engine(cache: EngineCache, place: Path) -> None:
    (place / RECORD).unlink()
    (place / f"{ENGINE}.partly").write_bytes(b"eng")
    assert cache.load(KEY) is None
    cache.keep(KEY, BUILT)
    assert cache.load(KEY) is not None


def test_two_builds_at_the_same_time_do_not_mix(cache: EngineCache, place: Path) -> None:
    # The second one's engine was written, the first one's record came last.
    record = (place / RECORD).read_bytes()
    cache.keep(KEY, Built(b"another"))
    (place / RECORD).write_bytes(record)
    assert cache.load(KEY) == Built(b"engine", b"", ("softmax",))
    (place / ENGINE).unlink()
    assert cache.load(KEY) is None


def test_where_nothing_would_be_loaded_nothing_is_built(cache: EngineCache, refused) -> None:
    cache.folder.mkdir()
    cache.folder.chmod(0o775)
    with refused(IntegrityError, "chmod go-w"):
        kept_or_built(cache, KEY, lambda _: pytest.fail("it is built"), print)


def test_a_user_without_a_home_is_told_what_to_set(
    monkeypatch: pytest.MonkeyPatch, refused
) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("EDGEDL_ENGINES", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    with refused(BadInputError, "EDGEDL_ENGINES"):
        EngineCache.of_user()


def test_a_full_disk_keeps_nothing_and_the_engine_is_used(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    said: list[str] = []
    built = kept_or_built(cache, KEY, lambda _: BUILT, said.append)
    assert built is BUILT
    assert "No space left" in said[-1]
    assert [p.name for p in cache.folder.rglob("*") if p.is_file()] == []


def test_settings_stay_until_others_are_given(cache: EngineCache, refused) -> None:
    assert cache.settings(MODEL, "tensorrt") is None
    chosen = BuildSettings("tensorrt", workspace_mib=64, dla_core=0)
    cache.keep_settings(MODEL, chosen)
    assert cache.settings(MODEL, "tensorrt") == chosen
    assert cache.settings(MODEL, "tensorrt_rtx") is None
    assert cache.settings(b"another", "tensorrt") is None
    (path,) = cache.folder.iterdir()
    path.write_bytes(msgspec.json.encode({"library": 1}))
    with refused(IntegrityError, "damaged"):
        cache.settings(MODEL, "tensorrt")


def test_the_place_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEDL_ENGINES", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert EngineCache.of_user().folder == tmp_path / "edgedl" / "engines"
    monkeypatch.setenv("EDGEDL_ENGINES", str(tmp_path / "own"))
    assert EngineCache.of_user().folder == tmp_path / "own"
