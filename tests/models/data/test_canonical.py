"""The authors' own file formats, written here byte by byte, and hostile files in their place."""

import gzip
import os
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from listening import steps_to

from edgedl.models.data.canonical import cifar10_from_batches, fashion_mnist_from_idx, read_idx
from edgedl.runtime.errors import BadInputError

BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


@settings(deadline=None, max_examples=30)
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    seed=st.integers(0, 100),
    packed=st.booleans(),
)
def test_idx_round_trip(tmp_path_factory, shape, seed, packed):
    array = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    found = read_idx(path)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, array)


GOOD = idx(np.arange(24).reshape(4, 3, 2))


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "not an idx file"),
        (b"\x00\x00\x08", "not an idx file"),
        (b"not an idx file", "not an idx file"),
        (b"\x00\x00\x0d" + GOOD[3:], "unsigned bytes"),
        (GOOD[:-1], "header promises"),
        (GOOD[:17], "header promises"),
        (GOOD[:10], "header promises"),
        (gzip.compress(GOOD, mtime=0)[:-9], "gzip"),
        (gzip.compress(GOOD, mtime=0)[:8], "gzip"),
        (b"\x1f\x8b" + b"\xff" * 30, "gzip"),
        (gzip.compress(GOOD[:-5], mtime=0), "header promises"),
    ],
)
def test_idx_that_is_damaged(refused, tmp_path, content, word):
    (tmp_path / "train-images").write_bytes(content)
    with refused(BadInputError, "train-images", word):
        read_idx(tmp_path / "train-images")


@pytest.fixture
def fashion(tmp_path, small_split):
    """Write four idx files, two packed, two plain, in a folder below; return the splits."""
    folder = tmp_path / "set" / "raw"
    folder.mkdir(parents=True)
    splits = {"train": small_split(9, (28, 28, 1), 1), "t10k": small_split(4, (28, 28, 1), 2)}
    for stem, split in splits.items():
        images, labels = idx(split.images[..., 0]), idx(split.labels)
        packed = stem == "train"
        for kind, content in (("images-idx3", images), ("labels-idx1", labels)):
            name = f"{stem}-{kind}-ubyte" + (".gz" if packed else "")
            (folder / name).write_bytes(gzip.compress(content) if packed else content)
    return splits


def test_fashion_mnist_from_files(tmp_path, fashion):
    told = []
    found = fashion_mnist_from_idx(tmp_path, steps_to(told.append))
    assert set(found) == {"train", "test"}
    assert found["train"].digest() == fashion["train"].digest()
    assert found["test"].digest() == fashion["t10k"].digest()
    assert len(told) == 2


def test_file_that_is_missing(refused, tmp_path, fashion):
    (tmp_path / "set" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with refused(BadInputError, "t10k-labels-idx1-ubyte", str(tmp_path)):
        fashion_mnist_from_idx(tmp_path)


def test_labels_of_another_length(refused, tmp_path, fashion):
    (tmp_path / "set" / "raw" / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(3)))
    with refused(BadInputError, "one label per image"):
        fashion_mnist_from_idx(tmp_path)


def python2_batch(split):
    """Write a batch as its authors did: cPickle protocol 2 of Python 2, str keys, old numpy."""
    data = split.images.transpose(0, 3, 1, 2).reshape(len(split), -1).tobytes()
    rows = struct.pack("<I", len(split))
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        b"J" + rows + b"M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<I", len(data)) + data
    )
    labels = b"](" + b"".join(b"K" + bytes([v]) for v in split.labels) + b"e"
    return b"\x80\x02}(U\x04data" + array + b"tbU\x06labels" + labels + b"u."


def python3_batch(split):
    data = split.images.transpose(0, 3, 1, 2).reshape(len(split), -1)
    return pickle.dumps({b"data": data, b"labels": split.labels.tolist()}, protocol=3)


def write_batches(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip(BATCHES, contents, strict=True):
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("write", [python2_batch, python3_batch])
@pytest.mark.filterwarnings("ignore:numpy.core.multiarray is deprecated:DeprecationWarning")
def test_cifar10_from_batches(tmp_path, small_split, write):
    splits = [small_split(3 + i, (32, 32, 3), i) for i in range(6)]
    write_batches(tmp_path / "cifar-10-batches-py", [write(s) for s in splits])
    told = []
    found = cifar10_from_batches(tmp_path, steps_to(told.append))
    assert len(told) == 6
    train = np.concatenate([s.images for s in splits[:5]])
    np.testing.assert_array_equal(found["train"].images, train)
    np.testing.assert_array_equal(
        found["train"].labels, np.concatenate([s.labels for s in splits[:5]])
    )
    assert found["test"].digest() == splits[5].digest()


class Reduced:
    """Pickles to a call of anything."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def evil_batches(marker):
    """Return pickles whose loading would leave a file behind, or run somebody's code."""
    command = f"touch {marker}"
    return {
        "os.system": pickle.dumps(Reduced(os.system, command)),
        "exec": pickle.dumps(Reduced(exec, f"open({str(marker)!r}, 'w')")),
        "eval": b"c__builtin__\neval\n(V__import__('os').system('" + command.encode() + b"')\ntR.",
        "instance": b"(S'" + command.encode() + b"'\nios\nsystem\n.",
        "inside a dict": pickle.dumps({b"data": Reduced(os.system, command), b"labels": [1]}),
        "getattr": b"c__builtin__\ngetattr\n(cnumpy\nndarray\nVtofile\ntR.",
        "numpy.load": pickle.dumps(Reduced(np.load, str(marker))),
        "numpy.save": pickle.dumps(Reduced(np.save, str(marker), 1)),
        "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tofile\x93.",
        "not numpy": b"cnumpyevil\nndarray\n.",
    }


@pytest.mark.parametrize("kind", sorted(evil_batches("x")))
def test_evil_pickle_is_refused_and_not_run(refused, tmp_path, small_split, kind):
    marker = tmp_path / "ran"
    good = python3_batch(small_split(2, (32, 32, 3)))
    write_batches(tmp_path / "set", [good, good, evil_batches(marker)[kind], good, good, good])
    with refused(BadInputError, "data_batch_3", "CIFAR-10"):
        cifar10_from_batches(tmp_path / "set")
    assert not list(tmp_path.glob("ran*"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        b"\x80\x03",
        pickle.dumps([1, 2, 3]),
        pickle.dumps(7),
        pickle.dumps({b"data": 1}),
        pickle.dumps({"data": 1, "labels": 2}),
        pickle.dumps({b"data": b"x" * 100, b"labels": [1]})[:-20],
    ],
)
def test_file_that_is_no_batch(refused, tmp_path, content):
    write_batches(tmp_path, [content] * 6)
    with refused(BadInputError, "data_batch_1", "not a CIFAR-10 batch"):
        cifar10_from_batches(tmp_path)


def test_batch_that_is_missing(refused, tmp_path, small_split):
    write_batches(tmp_path, [python3_batch(small_split(2, (32, 32, 3)))] * 6)
    (tmp_path / "data_batch_4").unlink()
    with refused(BadInputError, "data_batch_4"):
        cifar10_from_batches(tmp_path)


def test_batch_with_too_few_labels(refused, tmp_path, small_split):
    split = small_split(3, (32, 32, 3))
    data = split.images.reshape(3, -1)
    write_batches(tmp_path, [pickle.dumps({b"data": data, b"labels": [1, 2]}, protocol=3)] * 6)
    with refused(BadInputError, "one label per image"):
        cifar10_from_batches(tmp_path)
