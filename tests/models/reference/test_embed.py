"""Rebuilding the embedded part from a full set in the cache."""

import numpy as np

from edgedl.models.data.datasets import DATASETS, cached_path
from edgedl.models.data.images import read_split, write_splits
from edgedl.models.reference.embed import embed_fashion_mnist as embed


def test_head_of_train_and_the_whole_test_split(tmp_path, small_split):
    full = small_split(10_007, (2, 1, 1))
    write_splits(cached_path("fashion_mnist"), {"train": full})
    embed(tmp_path / "new.npz")
    train = read_split(tmp_path / "new.npz", "train_10k")
    np.testing.assert_array_equal(train.images, full.images[:10_000])
    np.testing.assert_array_equal(train.labels, full.labels[:10_000])
    test = read_split(tmp_path / "new.npz", "test")
    assert test.digest() == DATASETS["fashion_mnist"].digests["test"]
