"""Labelled pictures: their digest, their file, and damaged files."""

import hashlib
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedl.models.data.images import LabelledImages, read_split, write_splits
from edgedl.runtime.errors import BadInputError, IntegrityError


@pytest.fixture
def stored(tmp_path, small_split):
    path = tmp_path / "set.npz"
    write_splits(path, {"train": small_split(30, seed=1), "test": small_split(20, seed=2)})
    return path


@pytest.mark.parametrize("shape", [(6, 5, 3), (1, 1, 1), (28, 28, 1)])
def test_written_splits_read_back(tmp_path, small_split, shape):
    path = tmp_path / "new" / "folder" / "set.npz"
    splits = {"train": small_split(7, shape, 1), "test": small_split(3, shape, 2)}
    write_splits(path, splits)
    assert os.listdir(path.parent) == ["set.npz"]
    for name, split in splits.items():
        found = read_split(path, name)
        np.testing.assert_array_equal(found.images, split.images)
        np.testing.assert_array_equal(found.labels, split.labels)
        assert found.images.dtype == np.uint8
        assert found.labels.dtype == np.int64
        assert found.digest() == split.digest()


def test_digest_is_sha256_of_pixels_and_labels(small_split):
    split = small_split(4, (2, 2, 1))
    pixels = bytes(int(v) for image in split.images for row in image for v in row.ravel())
    labels = b"".join(int(v).to_bytes(8, "little") for v in split.labels)
    assert split.digest() == hashlib.sha256(pixels + labels).hexdigest()


def test_digest_does_not_depend_on_storage(small_split):
    split = small_split()
    turned = np.asfortranarray(split.images)
    assert LabelledImages(turned, split.labels.astype(np.uint8)).digest() == split.digest()


@settings(deadline=None, max_examples=30)
@given(index=st.integers(0, 20 * 90 - 1), label=st.integers(0, 19))
def test_digest_sees_every_value(small_split, index, label):
    split = small_split()
    images, labels = split.images.copy(), split.labels.copy()
    images.ravel()[index] ^= 1
    labels[label] += 1
    assert LabelledImages(images, split.labels).digest() != split.digest()
    assert LabelledImages(split.images, labels).digest() != split.digest()


@pytest.mark.parametrize(
    ("images", "labels", "word"),
    [
        (np.zeros((3, 4, 4), np.uint8), np.zeros(3, np.int64), "[N, H, W, C]"),
        (np.zeros((3, 4, 4, 1), np.float32), np.zeros(3, np.int64), "float32"),
        (np.zeros((3, 4, 4, 1), np.uint8), np.zeros(2, np.int64), "one label per image"),
        (np.zeros((3, 4, 4, 1), np.uint8), np.zeros((3, 1), np.int64), "one label per image"),
    ],
)
def test_arrays_that_are_no_split(refused, images, labels, word):
    with refused(BadInputError, word):
        LabelledImages(images, labels)


def bad_deflate(content):
    """Give the first compressed stream a block type that does not exist."""
    name, extra = (int.from_bytes(content[at : at + 2], "little") for at in (26, 28))
    start = 30 + name + extra
    return content[:start] + b"\x07" + content[start + 1 :]


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x55]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        flipped,
        bad_deflate,
        lambda c: b"",
        lambda c: b"PK\x03\x04",
        lambda c: b"not a zip file",
        lambda c: c[: len(c) // 2],
        lambda c: c[:-1],
        lambda c: c[:-30],
        lambda c: c[100:],
    ],
)
def test_damaged_file(refused, stored, damage):
    stored.write_bytes(damage(stored.read_bytes()))
    with refused(IntegrityError, "set.npz", "delete it and fetch it again"):
        for name in ("train", "test"):
            read_split(stored, name)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_file_cut_short(refused, stored, share):
    content = stored.read_bytes()
    stored.write_bytes(content[: int(share * len(content))])
    with refused(IntegrityError, "set.npz"):
        read_split(stored, "test")


def test_split_that_is_not_in_the_file(refused, stored):
    with refused(IntegrityError, "set.npz", "'validation'"):
        read_split(stored, "validation")


class Boom:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


def test_pickled_objects_are_not_loaded(refused, tmp_path):
    labels = np.array([Boom()], object)
    np.savez(tmp_path / "set.npz", test_images=np.zeros((1, 2, 2, 1), np.uint8), test_labels=labels)
    with refused(IntegrityError, "set.npz"):
        read_split(tmp_path / "set.npz", "test")
