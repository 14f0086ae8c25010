"""The bundle: a directory with one ``manifest.json`` that says what every other file is.

Nothing is parsed, by anybody, before its size and sha256 have been checked. Those of the manifest
itself are in ``manifest.sha256``; if it is signed, the signature is in ``manifest.sig``.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from edgedl.runtime.bundle.files import read_plain_file
from edgedl.runtime.bundle.manifest import (
    FIRST_WITH_DIGEST,
    READABLE_VERSIONS,
    Artifact,
    FileRecord,
    Manifest,
)
from edgedl.runtime.bundle.seal import (
    DIGEST,
    MANIFEST,
    SIGNATURE,
    STATEMENT,
    read_manifest,
    read_signature,
    write_sealed,
)
from edgedl.runtime.bundle.signature import Trust
from edgedl.runtime.errors import BadInputError, IntegrityError
from edgedl.runtime.wording import meant, nearest

# What the manifest does not list: itself, and what protects it. The statement is never read here.
UNLISTED = (MANIFEST, DIGEST, SIGNATURE, STATEMENT)
# Files that desktops leave in every folder they show. They are never read.
LEFT_BY_DESKTOPS = (".DS_Store", "Thumbs.db", "desktop.ini")
APPLE_DOUBLE = "._"
# Where the output folder of ``edgedl compress`` has its bundle.
INSIDE = "bundle"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. Files are read through ``read`` only.

    Attributes:
        folder: it is in.
        manifest: what is in it.
        signer: name of the trusted key that it is signed with; None where nobody asked, or where
            an unsigned one was allowed.
    """

    folder: Path
    manifest: Manifest
    signer: str | None = None

    @classmethod
    def open(cls, folder: Path, trust: Trust | None = None) -> "Bundle":
        """Read the manifest and compare the folder's listing with it.

        Args:
            folder: the bundle, or the output folder of ``edgedl compress`` that it is in.
            trust: whose bundles are accepted; None accepts everybody's, signed or not.

        Raises:
            BadInputError: there is no bundle, or one of another version's manifest.
            IntegrityError: the manifest is damaged or not signed by a trusted key, or files are
                missing, added, or links.
        """
        folder = find_bundle(folder)
        raw, has_digest = read_manifest(folder)
        signer = None if trust is None else trust.signer(raw, read_signature(folder), folder)
        try:
            manifest = msgspec.json.decode(raw, type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            version = _version_of(raw)
            if version not in (None, *READABLE_VERSIONS):
                known = ", ".join(str(v) for v in READABLE_VERSIONS)
                raise BadInputError(
                    f"{folder} has a manifest of version {version}, this edgedl reads {known}: "
                    "compress again, or take the edgedl that made it"
                ) from error
            raise IntegrityError(f"{folder / MANIFEST} is not a valid manifest: {error}") from error
        if not has_digest and manifest.schema_version >= FIRST_WITH_DIGEST:
            raise IntegrityError(f"{folder / DIGEST} is missing: copy the bundle again")
        bundle = cls(folder, manifest, signer)
        bundle._check_listing()
        return bundle

    def read(self, path: str) -> bytes:
        """Return the verified content of a listed file.

        Raises:
            IntegrityError: size or sha256 differ from the manifest, or the file is a link.
        """
        record = self.manifest.files[path]
        content = read_plain_file(self.folder / path, record.size_bytes)
        if len(content) != record.size_bytes:
            raise IntegrityError(
                f"{self.folder / path} has {len(content)} bytes, the manifest says "
                f"{record.size_bytes}: copy the bundle again"
            )
        if hashlib.sha256(content).hexdigest() != record.sha256:
            raise IntegrityError(
                f"{self.folder / path} does not match its sha256 in the manifest: "
                "it was changed or damaged, copy the bundle again"
            )
        return content

    def verify(self) -> None:
        """Check every file of the bundle.

        Raises:
            IntegrityError: as ``read``.
        """
        for path in self.manifest.files:
            self.read(path)

    def artifact(self, name: str) -> Artifact:
        """Return the artifact of this name.

        Raises:
            BadInputError: when there is none; the message lists those there are.
        """
        for artifact in self.manifest.artifacts:
            if artifact.name == name:
                return artifact
        names = [artifact.name for artifact in self.manifest.artifacts]
        raise BadInputError(f"{self.folder} has no artifact '{name}'{meant(name, names)}")

    def _check_listing(self) -> None:
        listed = set(self.manifest.files)
        for path in listed | {a.path for a in self.manifest.artifacts}:
            if path not in listed or not _is_plain_path(path):
                raise IntegrityError(f"{self.folder / MANIFEST} names a file it may not: '{path}'")
        found = {
            p.relative_to(self.folder).as_posix()
            for p in self.folder.rglob("*")
            if (not p.is_dir() or p.is_symlink()) and not _is_left_by_desktop(p)
        }
        found.difference_update(UNLISTED)
        for path in sorted(listed - found):
            raise IntegrityError(f"{self.folder / path} is missing: copy the bundle again")
        for path in sorted(found - listed):
            raise IntegrityError(f"{self.folder} has {path!r}, not in the manifest: remove it")


def find_bundle(folder: Path) -> Path:
    """Return the folder of a bundle, given itself or the output folder that it is in.

    Raises:
        BadInputError: neither has a manifest; the message has a folder near to it that will do.
    """
    found = _bundle_at(folder)
    if found is not None:
        return found
    if not folder.exists():
        beside = [path for path in _folders(folder.parent) if _bundle_at(path)]
        near = nearest(str(folder), map(str, beside))
        raise BadInputError(f"{folder} is not a bundle: there is no such folder{near}")
    if not folder.is_dir():
        raise BadInputError(f"{folder} is not a bundle: it is a file, not a folder")
    inside = next((path for path in _folders(folder) if _bundle_at(path)), None)
    hint = "" if inside is None else f", did you mean '{inside}'?"
    raise BadInputError(
        f"{folder} is not a bundle: neither it nor {folder / INSIDE} has a {MANIFEST}{hint}"
    )


def _bundle_at(folder: Path) -> Path | None:
    return next((path for path in (folder, folder / INSIDE) if (path / MANIFEST).exists()), None)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` of a bundle, whole or not at all, and its digest.

    A signature of the one before is removed: it says nothing of this one.
    """
    write_sealed(folder, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def record_files(folder: Path) -> dict[str, FileRecord]:
    """Return size and sha256 of every file that the manifest of a folder lists."""
    records = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name not in UNLISTED and not _is_left_by_desktop(path):
            content = path.read_bytes()
            records[name] = FileRecord(len(content), hashlib.sha256(content).hexdigest())
    return records


def _version_of(raw: bytes) -> int | None:
    """Return the version that a manifest says it is of, if it says one."""

    class Versioned(msgspec.Struct):
        schema_version: int

    try:
        return msgspec.json.decode(raw, type=Versioned).schema_version
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # The last: brackets within brackets, made to be that.
        return None


def _is_left_by_desktop(path: Path) -> bool:
    return path.name in LEFT_BY_DESKTOPS or path.name.startswith(APPLE_DOUBLE)


def _is_plain_path(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and not PurePosixPath(path).is_absolute() and ".." not in parts
