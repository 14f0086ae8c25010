"""Signatures: who signed, what was changed, and what OpenSSH and OpenSSL make of the same files."""

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgedl.runtime.bundle.bundle import Bundle, write_manifest
from edgedl.runtime.bundle.seal import DIGEST, MANIFEST, SIGNATURE, STATEMENT, write_signature
from edgedl.runtime.bundle.signature import Trust, fingerprint, is_encrypted, sign
from edgedl.runtime.errors import BadInputError, IntegrityError

PRIVATE = serialization.PrivateFormat
PUBLIC = serialization.PublicFormat
ENCODING = serialization.Encoding
OPEN = serialization.NoEncryption()


class Signer:
    """A key in the files of a folder."""

    def __init__(self, folder: Path, seed: int, private=PRIVATE.OpenSSH, encryption=OPEN) -> None:
        key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self.private, self.public = folder / f"key{seed}", folder / f"key{seed}.pub"
        self.private.write_bytes(key.private_bytes(ENCODING.PEM, private, encryption))
        line = key.public_key().public_bytes(ENCODING.OpenSSH, PUBLIC.OpenSSH)
        self.public.write_bytes(line + f" signer {seed}\n".encode())
        self.pem = key.public_key().public_bytes(ENCODING.PEM, PUBLIC.SubjectPublicKeyInfo)
        self.fingerprint = fingerprint(key.public_key())

    def sign(self, folder: Path) -> None:
        write_signature(folder, sign((folder / MANIFEST).read_bytes(), self.private)[0])


@pytest.fixture
def alice(tmp_path: Path) -> Signer:
    return Signer(tmp_path, 1)


@pytest.fixture
def bob(tmp_path: Path) -> Signer:
    return Signer(tmp_path, 2)


def test_the_trusted_signer_is_named(bundle_copy: Path, alice: Signer, bob: Signer) -> None:
    both = alice.public.parent / "keys"
    both.write_text(
        f"\ufeff# ours\n  # and more\n\n{bob.public.read_text()}{alice.public.read_text()}"
    )
    alice.sign(bundle_copy)
    assert Bundle.open(bundle_copy, Trust.read(both)).signer == f"signer 1 ({alice.fingerprint})"
    assert Bundle.open(bundle_copy).signer is None


def test_a_statement_of_another_tool_lies_beside_until_the_manifest_changes(
    bundle_copy: Path, alice: Signer
) -> None:
    alice.sign(bundle_copy)
    (bundle_copy / STATEMENT).write_text("{}")
    bundle = Bundle.open(bundle_copy, Trust.read(alice.public))
    write_manifest(bundle_copy, bundle.manifest)
    assert not (bundle_copy / STATEMENT).exists()
    assert not (bundle_copy / SIGNATURE).exists()


def test_another_signer_is_refused(refused, bundle_copy: Path, alice: Signer, bob: Signer) -> None:
    bob.sign(bundle_copy)
    for allow in (False, True):
        with refused(IntegrityError, "not signed with a trusted key"):
            Bundle.open(bundle_copy, Trust.read(alice.public, allow))


def test_an_unsigned_one_is_accepted_where_that_is_allowed(
    refused, bundle_copy: Path, alice: Signer
) -> None:
    with refused(IntegrityError, "is not signed", "--allow-unsigned"):
        Bundle.open(bundle_copy, Trust.read(alice.public))
    assert Bundle.open(bundle_copy, Trust.read(alice.public, True)).signer is None


@pytest.mark.parametrize("with_digest", [True, False])
def test_any_changed_byte_of_a_signed_manifest_is_found(
    refused, bundle_copy: Path, alice: Signer, with_digest: bool
) -> None:
    alice.sign(bundle_copy)
    manifest = bundle_copy / MANIFEST
    good = manifest.read_bytes()
    trust = Trust.read(alice.public)
    if not with_digest:
        (bundle_copy / DIGEST).unlink()
    for at in range(0, len(good), len(good) // 40):
        manifest.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with refused(IntegrityError, "changed"):
            Bundle.open(bundle_copy, trust)


def test_a_new_manifest_has_no_old_signature(bundle_copy: Path, alice: Signer) -> None:
    alice.sign(bundle_copy)
    write_manifest(bundle_copy, Bundle.open(bundle_copy).manifest)
    assert not (bundle_copy / SIGNATURE).exists()


@pytest.mark.parametrize("content", [b"", b"x" * 63, b"x" * 65])
def test_what_is_no_signature_is_refused(
    refused, bundle_copy: Path, alice: Signer, content: bytes
) -> None:
    (bundle_copy / SIGNATURE).write_bytes(content)
    with refused(IntegrityError, SIGNATURE):
        Bundle.open(bundle_copy, Trust.read(alice.public))


@pytest.mark.parametrize("private", [PRIVATE.OpenSSH, PRIVATE.PKCS8])
@pytest.mark.parametrize("locked", [False, True])
def test_keys_of_every_format(
    refused, tmp_path: Path, private: serialization.PrivateFormat, locked: bool
) -> None:
    encryption = serialization.BestAvailableEncryption(b"secret") if locked else OPEN
    signer = Signer(tmp_path, 3, private, encryption)
    assert is_encrypted(signer.private) == locked
    signature, name = sign(b"manifest", signer.private, "secret" if locked else None)
    assert name == signer.fingerprint
    for text in (signer.public.read_bytes(), signer.pem):
        (tmp_path / "keys").write_bytes(text)
        trust = Trust.read(tmp_path / "keys")
        assert signer.fingerprint in str(trust.signer(b"manifest", signature, tmp_path))
    if locked:
        with refused(BadInputError, str(signer.private), "passphrase"):
            sign(b"manifest", signer.private, "wrong")
        with refused(BadInputError, str(signer.private)):
            sign(b"manifest", signer.private)


def test_what_holds_no_ed25519_key_is_refused(refused, tmp_path: Path, alice: Signer) -> None:
    other = ec_key(SECP256R1())
    wrong = tmp_path / "wrong"
    wrong.write_bytes(other.private_bytes(ENCODING.PEM, PRIVATE.PKCS8, OPEN))
    with refused(BadInputError, "no Ed25519 key", "ssh-keygen"):
        sign(b"x", wrong)
    with refused(BadInputError, "no private key", "ssh-keygen"):
        sign(b"x", alice.public)
    public = other.public_key()
    wrong.write_bytes(public.public_bytes(ENCODING.PEM, PUBLIC.SubjectPublicKeyInfo))
    with refused(BadInputError, "not Ed25519"):
        Trust.read(wrong)
    for text, why in (("", "has no public key"), ("# none\n", "has no public key"),
                      ("ssh-ed25519 AAAA x", "no public key"), ("\xff\xfe", "no public key"),
                      (alice.private.read_text(), "no public key")):  # fmt: skip
        wrong.write_text(text)
        with refused(BadInputError, why):
            Trust.read(wrong)
    with refused(BadInputError, "cannot be read"):
        Trust.read(tmp_path)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_keys_of_ssh_keygen(tmp_path: Path) -> None:
    key = tmp_path / "id"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me", "-f", key], check=True
    )
    shown = subprocess.run(["ssh-keygen", "-lf", key], check=True, capture_output=True, text=True)
    signature, name = sign(b"manifest", key)
    assert name == shown.stdout.split()[1]
    signer = Trust.read(key.with_suffix(".pub")).signer(b"manifest", signature, tmp_path)
    assert signer == f"me ({name})"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_checks_the_same_signature(
    bundle_copy: Path, alice: Signer, tmp_path: Path
) -> None:
    alice.sign(bundle_copy)
    (tmp_path / "pem").write_bytes(alice.pem)
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", tmp_path / "pem", "-rawin"]
    files = ["-in", bundle_copy / MANIFEST, "-sigfile", bundle_copy / SIGNATURE]
    assert subprocess.run([*command, *files], capture_output=True).returncode == 0
    with (bundle_copy / MANIFEST).open("ab") as manifest:
        manifest.write(b" ")
    assert subprocess.run([*command, *files], capture_output=True).returncode != 0
