"""Unpacked packages: taken as they are, and checked by the sum of the file that matters."""

import hashlib
from pathlib import Path

import pytest

from benchmarks.real_networks.networks import NETWORKS, find_networks
from benchmarks.real_networks.shelf import PackageShelf
from edgedl.models.data.packages import Package
from edgedl.runtime.errors import BackendUnavailableError, BadInputError, IntegrityError

PACKAGE = Package("npm", "@somebody/nets", "1.0.0", "0" * 64)
CONTENT = b"weights"


@pytest.fixture
def shelf(tmp_path: Path) -> PackageShelf:
    folder = tmp_path / "@somebody+nets-1.0.0"
    folder.mkdir()
    (folder / "net.bin").write_bytes(CONTENT)
    return PackageShelf(tmp_path)


def test_an_unpacked_package_is_not_downloaded(shelf: PackageShelf) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert shelf.weights(PACKAGE, "net.bin", digest).read_bytes() == CONTENT


def test_other_weights_are_refused(shelf: PackageShelf) -> None:
    with pytest.raises(IntegrityError, match=r"net\.bin has sha256"):
        shelf.weights(PACKAGE, "net.bin", "1" * 64)


def test_a_file_that_is_not_there_is_named(shelf: PackageShelf) -> None:
    with pytest.raises(BadInputError, match=r"other\.bin is missing: delete"):
        shelf.weights(PACKAGE, "other.bin", "1" * 64)


def test_a_client_that_is_missing_is_named(tmp_path: Path, monkeypatch: object) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # type: ignore[attr-defined]
    with pytest.raises(BackendUnavailableError, match="'npm' is not installed"):
        PackageShelf(tmp_path / "shelf").root(PACKAGE)
    assert not list((tmp_path / "shelf").iterdir())


def test_the_table_is_whole() -> None:
    names = [network.name for network in NETWORKS]
    assert len(set(names)) == len(names) >= 10
    for network in NETWORKS:
        assert len(network.sha256) == len(network.package.sha256) == 64
        assert network.licence
        assert network.data


def test_networks_are_found_by_name() -> None:
    assert [n.name for n in find_networks(["magika", "nsnet2"])] == ["magika", "nsnet2"]
    assert find_networks([]) == NETWORKS
    with pytest.raises(BadInputError, match="no network 'resnet': there are crepe-tiny"):
        find_networks(["resnet"])
