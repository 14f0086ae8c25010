"""The tasks of the known data sets."""

import numpy as np

from edgedl.models.data.datasets import DATASETS, load_split
from edgedl.models.reference.tasks import make_task
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.task import training_split


def test_task_scores_on_test_and_calibrates_on_training_data():
    task = make_task("fashion_mnist")
    assert task.classes == DATASETS["fashion_mnist"].classes
    for name, split in (("test", "test"), ("calibration", "train_10k")):
        expected = load_split("fashion_mnist", split)
        batch = next(task.batches(name, 64))
        pixels = expected.images[:64].transpose(0, 3, 1, 2) / 255
        np.testing.assert_allclose(batch.inputs[0], pixels, atol=1e-6)
        np.testing.assert_array_equal(batch.labels, expected.labels[:64])
    assert sum(len(b.labels) for b in task.batches("test", 1000)) == 10_000


def test_a_training_split_is_named():
    for name in ("fashion_mnist", "cifar10", "watch"):
        assert training_split(make_task(name)) == "train"


def test_task_of_a_set_that_was_not_fetched(refused):
    task = make_task("cifar10")
    assert (task.preprocessing.channels, task.preprocessing.height) == (3, 32)
    for split in ("test", "calibration", "train"):
        with refused(BadInputError, "edgedl data fetch cifar10"):
            next(task.batches(split, 10))
    with refused(BadInputError, "'coco'"):
        make_task("coco")
