"""``edgedl sign``, and what run, bench and verify say of signed and unsigned bundles."""

import json
from pathlib import Path

import numpy as np
import pytest
from command import Run, assert_one_line
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)


@pytest.fixture
def keys(tmp_path: Path) -> tuple[str, str]:
    """A private and a public key."""
    key = Ed25519PrivateKey.from_private_bytes(b"7" * 32)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    (tmp_path / "key").write_bytes(private)
    (tmp_path / "key.pub").write_bytes(public + b" me")
    return str(tmp_path / "key"), str(tmp_path / "key.pub")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).standard_normal((2, 3, 12, 12), dtype=np.float32)
    np.save(tmp_path / "x.npy", noise)
    return tmp_path / "x.npy"


def test_a_signed_bundle_says_by_whom(
    edgedl: Run, bundle_copy: Path, keys: tuple[str, str], pictures: Path
) -> None:
    private, public = keys
    assert edgedl("verify", bundle_copy).stdout.startswith("not signed\n")
    done = edgedl("sign", bundle_copy, "--key", private)
    assert done.returncode == 0
    assert "manifest.sig: signed with SHA256:" in done.stdout
    assert edgedl("verify", bundle_copy).stdout.startswith("signed, by whom is not checked")
    done = edgedl("verify", bundle_copy, "--trust", public)
    assert done.returncode == 0
    assert done.stdout.startswith("signed by me (SHA256:")
    done = edgedl("run", bundle_copy, "--input", pictures, "--trust", public, "--json")
    assert json.loads(done.stdout.splitlines()[0])["signature"].startswith("signed by me (")


def test_an_unsigned_bundle_is_refused_unless_that_is_allowed(
    edgedl: Run, bundle_copy: Path, keys: tuple[str, str], pictures: Path
) -> None:
    arguments = (bundle_copy, "--input", pictures, "--trust", keys[1])
    assert_one_line(edgedl("run", *arguments), 5, "is not signed", "--allow-unsigned")
    done = edgedl("run", *arguments, "--allow-unsigned")
    assert "not signed, allowed" in done.stderr
    done = edgedl("run", *arguments, "--allow-unsigned", "--json")
    assert json.loads(done.stdout.splitlines()[0])["signature"] == "not signed, allowed"
    # Without --trust nobody asked, and nothing is said.
    done = edgedl("run", bundle_copy, "--input", pictures, "--json")
    assert "signature" not in json.loads(done.stdout.splitlines()[0])


def test_a_damaged_bundle_is_not_signed(
    edgedl: Run, bundle_copy: Path, keys: tuple[str, str]
) -> None:
    path = bundle_copy / "int8.tflite"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert_one_line(edgedl("sign", bundle_copy, "--key", keys[0]), 5, "int8.tflite", "sha256")
    assert not (bundle_copy / "manifest.sig").exists()


def test_a_single_model_file_is_unsigned(
    edgedl: Run, bundle_copy: Path, keys: tuple[str, str], tmp_path: Path
) -> None:
    arguments = ("--task", "fashion_mnist", "--trust", keys[1], "--out", tmp_path / "out")
    done = edgedl("bench", bundle_copy / "float32.onnx", *arguments)
    assert_one_line(done, 5, "float32.onnx is not signed", "--allow-unsigned")


def test_wrong_arguments(edgedl: Run, bundle_copy: Path, keys: tuple[str, str]) -> None:
    private, public = keys
    assert_one_line(edgedl("sign", bundle_copy, "--key", public), 2, "no private key", "ssh-keygen")
    assert_one_line(edgedl("verify", bundle_copy, "--trust", private), 2, "no public key")
    assert_one_line(edgedl("verify", bundle_copy, "--allow-unsigned"), 2, "goes with --trust")
