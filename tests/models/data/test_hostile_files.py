"""Damaged and hostile data files meet one documented error, and run no code."""

import gzip
import pickle
import struct
import sys

import numpy as np
import pytest

from edgedl.models.data.canonical import cifar10_from_batches, read_idx
from edgedl.models.data.datasets import load_split
from edgedl.models.data.images import LabelledImages, read_split, write_splits
from edgedl.models.data.packages import Package, fetch_package
from edgedl.runtime.errors import BackendUnavailableError, BadInputError, IntegrityError
from edgedl.runtime.progress import SILENT


@pytest.mark.parametrize("kind", ["version", "npy", "float"])
def test_cached_file_that_is_not_ours(refused, tmp_path, kind):
    path = tmp_path / "set.npz"
    write_splits(path, {"test": LabelledImages(np.zeros((2, 3, 3, 1), np.uint8), np.arange(2))})
    if kind == "version":
        raw = bytearray(path.read_bytes())
        raw[raw.index(b"PK\x01\x02") + 6] = 119
        path.write_bytes(raw)
    elif kind == "npy":
        with path.open("wb") as out:
            np.save(out, np.zeros(3))
    else:
        with path.open("wb") as out:
            np.savez(out, test_images=np.zeros((2, 3, 3, 1)), test_labels=np.arange(2))
    with refused(IntegrityError, "set.npz"):
        read_split(path, "test")


def test_gzip_with_a_damaged_body(refused, tmp_path):
    content = bytearray(gzip.compress(b"\x00\x00\x08\x01\x00\x00\x00\x04abcd"))
    content[10] = 7
    (tmp_path / "a.gz").write_bytes(content)
    with refused(BadInputError, "a.gz", "gzip"):
        read_idx(tmp_path / "a.gz")


def test_idx_whose_size_overflows(refused, tmp_path):
    (tmp_path / "a").write_bytes(b"\0\0\x08\3" + struct.pack(">3I", 1 << 31, 1 << 31, 4))
    with refused(BadInputError, "a"):
        read_idx(tmp_path / "a")


def batches(folder, content):
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("data", "labels"),
    [
        (np.zeros((2, 3000), np.uint8), [1, 2]),
        (None, [1]),
        (np.zeros((2, 3072), np.uint8), ["a", "b"]),
    ],
)
def test_batch_with_other_content(refused, tmp_path, data, labels):
    batches(tmp_path, pickle.dumps({b"data": data, b"labels": labels}, protocol=3))
    with refused(BadInputError, "data_batch_1"):
        cifar10_from_batches(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x03cnumpy.linalg\nndarray\n.",
        b"\x80\x03\x88\x51.",
    ],
)
def test_hostile_pickle_raises_the_documented_error(refused, tmp_path, content):
    batches(tmp_path, content)
    with refused(BadInputError, "data_batch_1"):
        cifar10_from_batches(tmp_path)


def test_pickle_cannot_import_any_numpy_module(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["edgedl"])
    batches(tmp_path, b"\x80\x03cnumpy.f2py.__main__\nndarray\n.")
    with refused(BadInputError, "data_batch_1"):
        cifar10_from_batches(tmp_path)
    assert "numpy.f2py.__main__" not in sys.modules


def test_split_nobody_has(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with refused(BadInputError, "'validation'"):
        load_split("fashion_mnist", "validation")


@pytest.mark.parametrize(
    "script", ["#!/bin/sh\nprintf '\\377\\n' >&2\nexit 1\n", "#!/nonexistent/sh\n"]
)
def test_client_that_cannot_even_fail(refused, tmp_path, monkeypatch, script):
    (tmp_path / "npm").write_text(script)
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "w").mkdir()
    with refused(BackendUnavailableError):
        fetch_package(Package("npm", "n", "1", "0" * 64), lambda a, b: a, SILENT, tmp_path / "w")
