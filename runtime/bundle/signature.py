"""Ed25519 signatures of a bundle's manifest, and whose are trusted.

A signature is 64 bytes over the exact bytes of ``manifest.json``. The manifest has the sha256 of
every other file, so nothing that changes an answer is left out. ``openssl pkeyutl`` checks it, too.

Source: RFC 8032, Edwards-curve digital signature algorithm, section 5.1.
"""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from edgedl.runtime.errors import BackendUnavailableError, BadInputError, IntegrityError
from edgedl.runtime.install import install_line

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

SIGNATURE_BYTES = 64
# Of a file of keys: thousands of them.
LIMIT_BYTES = 1 << 20
MAKE_ONE = "make one with 'ssh-keygen -t ed25519 -f FILE'"
SSH = "ssh-ed25519"


@dataclass(frozen=True)
class TrustedKey:
    """A public key of Ed25519, its 32 bytes, and what it is called."""

    raw: bytes
    name: str

    @property
    def key(self) -> "Ed25519PublicKey":
        """The key as cryptography has it."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        return Ed25519PublicKey.from_public_bytes(self.raw)


@dataclass(frozen=True)
class Trust:
    """Whose bundles are accepted.

    Attributes:
        keys: a bundle must be signed with one of them.
        allow_unsigned: whether a bundle without any signature is accepted, too.
    """

    keys: tuple[TrustedKey, ...]
    allow_unsigned: bool = False

    @classmethod
    def read(cls, path: Path, allow_unsigned: bool = False) -> "Trust":
        """Read the public keys of a file.

        Args:
            path: lines as ``ssh-keygen`` writes them (``ssh-ed25519 AAAA... name``), PEM blocks as
                ``openssl`` does, or both; empty lines and those that begin with # are left out.
            allow_unsigned: whether a bundle without any signature is accepted, too.

        Raises:
            BadInputError: the file cannot be read, or has something else in it, or no key.
            BackendUnavailableError: the package cryptography is not installed.
        """
        text = _read(path, "keys").decode("utf-8-sig", "replace")
        keys = tuple(_public_key(block, path) for block in _blocks(text))
        if not keys:
            raise BadInputError(f"{path} has no public key: {MAKE_ONE}, FILE.pub has it")
        return cls(keys, allow_unsigned)

    def signer(self, manifest: bytes, signature: bytes | None, folder: Path) -> str | None:
        """Return the name of the key that a manifest is signed with; None for an allowed unsigned.

        Args:
            manifest: the bytes of ``manifest.json``.
            signature: of them; None where the bundle has none.
            folder: of the bundle, for messages.

        Raises:
            IntegrityError: it is signed with none of the keys.
        """
        from cryptography.exceptions import InvalidSignature

        if signature is None:
            if self.allow_unsigned:
                return None
            raise IntegrityError(
                f"{folder} is not signed: have it signed ('edgedl sign'), or accept that with "
                "--allow-unsigned"
            )
        for trusted in self.keys:
            try:
                trusted.key.verify(signature, manifest)
            except InvalidSignature:
                continue
            return trusted.name
        raise IntegrityError(
            f"{folder} is not signed with a trusted key, or was changed after it was signed"
        )


def sign(manifest: bytes, key: Path, passphrase: str | None = None) -> tuple[bytes, str]:
    """Return the signature of a manifest, and the fingerprint of the key.

    Args:
        manifest: the bytes of ``manifest.json``.
        key: file of an Ed25519 private key, as ``ssh-keygen`` or ``openssl genpkey`` writes it.
        passphrase: that the file is encrypted with; None if it is not.

    Raises:
        BadInputError: the file holds no such key, or the passphrase is missing or wrong.
        BackendUnavailableError: the package cryptography is not installed, or bcrypt, which
            encrypted keys of OpenSSH need.
    """
    private = _private_key(key, passphrase)
    return private.sign(manifest), fingerprint(private.public_key())


def fingerprint(key: "Ed25519PublicKey") -> str:
    """Return what ``ssh-keygen -l`` shows of a key: SHA256: and base64."""
    raw = key.public_bytes_raw()
    kind = SSH.encode()
    wire = len(kind).to_bytes(4, "big") + kind + len(raw).to_bytes(4, "big") + raw
    return "SHA256:" + base64.b64encode(hashlib.sha256(wire).digest()).decode().rstrip("=")


def is_encrypted(key: Path) -> bool:
    """Say whether a private key needs a passphrase.

    Raises:
        BadInputError: the file cannot be read.
    """
    try:
        _load_private(_read(key, "key"), None)
    except TypeError:
        return True
    except ValueError:
        return False
    return False


def _private_key(path: Path, passphrase: str | None) -> "Ed25519PrivateKey":
    content = _read(path, "key")
    try:
        key = _load_private(content, None if passphrase is None else passphrase.encode())
    except TypeError as error:
        raise BadInputError(f"{path}: {error}") from error
    except ValueError as error:
        why = "the passphrase is wrong, or it" if passphrase is not None else "it"
        raise BadInputError(f"{path}: {why} is no private key: {MAKE_ONE}") from error
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if not isinstance(key, Ed25519PrivateKey):
        raise BadInputError(f"{path} is no Ed25519 key: {MAKE_ONE}")
    return key


def _load_private(content: bytes, passphrase: bytes | None) -> object:
    """Return the private key of a file's content.

    Raises:
        ValueError: there is none. TypeError: the passphrase is missing, or there should be none.
    """
    serialization = _serialization()
    from cryptography.exceptions import UnsupportedAlgorithm

    is_ssh = b"OPENSSH PRIVATE KEY" in content
    load = serialization.load_ssh_private_key if is_ssh else serialization.load_pem_private_key
    try:
        return load(content, passphrase)
    except UnsupportedAlgorithm as error:
        if "bcrypt" in str(error):
            missing = f"bcrypt is missing, for encrypted keys: {install_line('sign')}"
            raise BackendUnavailableError(missing) from error
        raise ValueError(str(error)) from error
    except ValueError as error:
        # For PEM it is a TypeError where the passphrase is missing.
        if is_ssh and passphrase is None and "assw" in str(error):
            raise TypeError(str(error)) from error
        raise


def _blocks(text: str) -> list[str]:
    """Divide a file of keys into lines of OpenSSH and blocks of PEM."""
    blocks: list[str] = []
    pem: list[str] = []
    for line in map(str.strip, text.splitlines()):
        if pem or line.startswith("-----BEGIN"):
            pem.append(line)
            if line.startswith("-----END"):
                blocks.append("\n".join(pem))
                pem = []
        elif line and not line.startswith("#"):
            blocks.append(line)
    return [*blocks, *(["\n".join(pem)] if pem else [])]


def _public_key(block: str, path: Path) -> TrustedKey:
    serialization = _serialization()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    is_ssh = block.startswith(SSH)
    load = serialization.load_ssh_public_key if is_ssh else serialization.load_pem_public_key
    try:
        key = load(block.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadInputError(
            f"{path} has something that is no public key: {block[:40]!r}"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise BadInputError(f"{path} has a key that is not Ed25519: {MAKE_ONE}")
    comment = block.split(None, 2)[2:] if is_ssh else []
    printed = fingerprint(key)
    return TrustedKey(key.public_bytes_raw(), f"{comment[0]} ({printed})" if comment else printed)


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise BadInputError(f"{path} cannot be read ({error.strerror})") from error
    if len(content) > LIMIT_BYTES:
        raise BadInputError(f"{path} is too large for a file of {what}")
    return content


def _serialization() -> ModuleType:
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError as error:
        missing = f"cryptography is missing: {install_line('sign')}"
        raise BackendUnavailableError.of(error, missing) from error
    return serialization
