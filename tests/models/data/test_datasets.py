"""The embedded data are the published data, and the cache takes nothing else."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from edgedl.models.data import datasets
from edgedl.models.data.datasets import (
    DATASETS,
    cached_path,
    find_dataset,
    load_recordings,
    load_split,
    store,
)
from edgedl.models.data.images import read_split, write_splits
from edgedl.models.shipped import shipped
from edgedl.runtime.errors import BackendUnavailableError, BadInputError, IntegrityError

EMBEDDED = shipped("embedded")
# Counted once in the authors' own idx files.
TRAIN_10K_DIGEST = "f7f631cc958cfb4145b028262e588753a49ccedb79ba3606968c186373bd423b"
TRAIN_10K_COUNTS = [942, 1027, 1016, 1019, 974, 989, 1021, 1022, 990, 1000]


@pytest.mark.parametrize(
    ("split", "digest", "counts"),
    [
        ("test", DATASETS["fashion_mnist"].digests["test"], [1000] * 10),
        ("train_10k", TRAIN_10K_DIGEST, TRAIN_10K_COUNTS),
    ],
)
def test_embedded_fashion_mnist(split, digest, counts):
    found = load_split("fashion_mnist", split)
    assert found.images.shape == (10_000, 28, 28, 1)
    assert found.images.dtype == np.uint8
    assert (found.images.min(), found.images.max()) == (0, 255)
    assert np.bincount(found.labels).tolist() == counts
    assert found.digest() == digest


def test_embedded_splits_share_no_picture():
    train, test = (load_split("fashion_mnist", s).images for s in ("train_10k", "test"))
    assert not {x.tobytes() for x in train} & {x.tobytes() for x in test}


def test_classes_look_like_their_names():
    test = load_split("fashion_mnist", "test")
    classes = DATASETS["fashion_mnist"].classes
    ink = {name: test.images[test.labels == i].mean() for i, name in enumerate(classes)}
    assert max(ink, key=ink.get) in {"Coat", "Pullover"}
    assert min(ink, key=ink.get) == "Sandal"


def test_embedded_files_are_small_and_licensed():
    assert len((EMBEDDED / "fashion_mnist.npz").read_bytes()) <= 12 * 2**20
    licence = (EMBEDDED / "LICENSE-fashion-mnist.txt").read_text()
    assert "MIT" in licence
    assert "Zalando" in licence
    provenance = (EMBEDDED / "PROVENANCE.md").read_text()
    assert DATASETS["fashion_mnist"].package.version in provenance


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_data_set_is_described(name):
    dataset = find_dataset(name)
    assert dataset.name == name
    assert len(set(dataset.classes)) == {"watch": 7, "imagenet": 1000, "reuters": 8, "sotu": 0}.get(
        name, 10
    )
    assert set(dataset.sizes) == {"train", "test"}
    assert set(dataset.digests) == (set() if name == "imagenet" else {"train", "test"})
    assert all(len(int(d, 16).to_bytes(32, "big")) == 32 for d in dataset.digests.values())
    assert len(dataset.package.sha256) == 64
    assert dataset.licence


def test_unknown_data_set(refused):
    with refused(BadInputError, "'coco'", *DATASETS):
        find_dataset("coco")
    with refused(BadInputError, "'coco'"):
        load_split("coco", "test")
    with refused(BadInputError, "watch holds no pictures"):
        load_split("watch", "test")
    with refused(BadInputError, "cifar10 holds no recordings"):
        load_recordings("cifar10", "test")


def test_enlarged_pictures_are_the_source_s(small_split):
    write_splits(
        cached_path("cifar10"),
        {"train": small_split(520, (32, 32, 3)), "test": small_split(510, (32, 32, 3))},
    )
    found, source = load_split("imagenet", "test"), load_split("cifar10", "test")
    assert found.images.shape == (500, 224, 224, 3)
    assert np.unique(found.labels).min() >= 0
    assert found.labels.max() < 1000
    # Bilinear by 7: the middle of every block of 7x7 is the pixel it came from.
    np.testing.assert_array_equal(found.images[0, 3::7, 3::7], source.images[0])


def test_cache_is_where_the_user_wants_it(cache):
    assert cached_path("cifar10") == cache / "edgedl" / "datasets" / "cifar10.npz"


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("cifar10", "train"),
        ("cifar10", "test"),
        ("cifar10", "train_10k"),
        ("fashion_mnist", "train"),
    ],
)
def test_set_that_was_not_fetched(refused, cache, name, split):
    with refused(BadInputError, f"edgedl data fetch {name}", f"edgedl data import {name}"):
        load_split(name, split)
    assert not cache.exists()


def test_damaged_cache(refused, small_split):
    path = cached_path("cifar10")
    write_splits(path, {"train": small_split(), "test": small_split()})
    path.write_bytes(path.read_bytes()[:-200])
    with refused(IntegrityError, "cifar10.npz", "fetch it again"):
        load_split("cifar10", "test")


def test_train_10k_is_the_head_of_train(small_split):
    full = small_split(10_050, (1, 1, 3))
    write_splits(cached_path("cifar10"), {"train": full, "test": small_split(5)})
    found = load_split("cifar10", "train_10k")
    assert len(found) == 10_000
    np.testing.assert_array_equal(found.images, full.images[:10_000])
    np.testing.assert_array_equal(found.labels, full.labels[:10_000])
    assert len(load_split("cifar10", "train")) == 10_050
    assert len(load_split("cifar10", "test")) == 5


@pytest.fixture
def toy(monkeypatch, small_split):
    """A data set small enough to store: its record and its splits."""
    splits = {"train": small_split(30, seed=1), "test": small_split(20, seed=2)}
    dataset = replace(
        DATASETS["cifar10"],
        name="toy",
        image_shape=(6, 5, 3),
        sizes={"train": 30, "test": 20},
        digests={name: split.digest() for name, split in splits.items()},
    )
    monkeypatch.setitem(datasets.DATASETS, "toy", dataset)
    return splits


def test_store_and_load(toy):
    path = store("toy", toy)
    assert path == cached_path("toy")
    for name in ("train", "test"):
        assert load_split("toy", name).digest() == toy[name].digest()
        assert read_split(path, name).digest() == toy[name].digest()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"count": 19, "seed": 2}, ("toy test", "(19, 6, 5, 3)", "(20, 6, 5, 3)")),
        ({"count": 20, "shape": (5, 6, 3)}, ("toy test", "(20, 5, 6, 3)", "(20, 6, 5, 3)")),
        ({"count": 20, "shape": (6, 5, 1)}, ("toy test", "(20, 6, 5, 1)")),
        ({"count": 20, "seed": 3}, ("toy test", "sha256", "differ")),
    ],
)
def test_another_set_is_not_stored(refused, cache, toy, small_split, wrong, words):
    with refused(IntegrityError, *words):
        store("toy", {**toy, "test": small_split(**wrong)})
    assert not cache.exists()


def test_one_wrong_label_is_not_stored(refused, cache, toy):
    toy["train"].labels[29] = (toy["train"].labels[29] + 1) % 10
    with refused(IntegrityError, "toy train", "sha256"):
        store("toy", toy)
    assert not cache.exists()


def test_without_platformdirs(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with refused(BackendUnavailableError, "pip install", "[data]"):
        cached_path("cifar10")
    # What ships inside the package needs no cache.
    assert len(load_split("fashion_mnist", "test")) == 10_000
