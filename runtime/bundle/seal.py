"""What protects a manifest: its digest, and its signature, in files beside it."""

import hashlib
import os
from pathlib import Path

from edgedl.runtime.bundle.files import atomic_write, read_plain_file
from edgedl.runtime.bundle.signature import SIGNATURE_BYTES
from edgedl.runtime.errors import IntegrityError

MANIFEST = "manifest.json"
# A line as ``sha256sum`` writes it.
DIGEST = "manifest.sha256"
SIGNATURE = "manifest.sig"
# A statement of OpenSSF's model_signing about all files of the folder, which its own tool verifies.
STATEMENT = "model.sig"
MANIFEST_LIMIT_BYTES = 4 << 20


def write_sealed(folder: Path, manifest: bytes) -> None:
    """Write a manifest and its digest; signatures of the one before are removed."""
    for signature in (SIGNATURE, STATEMENT):
        (folder / signature).unlink(missing_ok=True)
    with atomic_write(folder / MANIFEST) as out:
        out.write(manifest)
    with atomic_write(folder / DIGEST) as out:
        out.write(_digest_line(manifest))


def write_signature(folder: Path, signature: bytes) -> None:
    """Write the signature of a manifest."""
    with atomic_write(folder / SIGNATURE) as out:
        out.write(signature)


def read_manifest(folder: Path) -> tuple[bytes, bool]:
    """Return the bytes of a manifest, and whether its digest is there.

    Raises:
        IntegrityError: it is no plain file, too large, or the digest is of another one.
    """
    manifest = read_plain_file(folder / MANIFEST, MANIFEST_LIMIT_BYTES)
    path = folder / DIGEST
    if not os.path.lexists(path):
        return manifest, False
    expected = _digest_line(manifest)
    if read_plain_file(path, len(expected)) != expected:
        raise IntegrityError(
            f"{folder / MANIFEST} does not match {DIGEST}: it was changed or damaged, copy the "
            "bundle again"
        )
    return manifest, True


def read_signature(folder: Path) -> bytes | None:
    """Return the signature of a manifest, None where there is none.

    Raises:
        IntegrityError: it is no plain file of a signature's size.
    """
    path = folder / SIGNATURE
    if not os.path.lexists(path):
        return None
    signature = read_plain_file(path, SIGNATURE_BYTES)
    if len(signature) != SIGNATURE_BYTES:
        raise IntegrityError(f"{path} is no signature: it has {len(signature)} bytes")
    return signature


def _digest_line(content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}  {MANIFEST}\n".encode()
