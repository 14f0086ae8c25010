"""A network that leaves a size free, and a file of it that does not.

The tiny network's manifest is edited: as a whole it takes pictures of any height, its files 12.
"""

import numpy as np
import pytest

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.runner import Runner


@pytest.fixture
def open_free(bundle_copy, edit_manifest):
    """Return a function that opens an artifact of the network whose height is free."""
    edit_manifest(lambda m: m["inputs"][0].update(shape=[None, 3, None, 12]))
    return lambda name: Runner.open(bundle_copy, name)


@pytest.mark.parametrize("name", ["ort-float32", "ort-int8", "tflite-float32", "tflite-int8"])
def test_file_of_another_length_is_refused(refused, open_free, name):
    with open_free(name) as runner:
        for height in (1, 11, 13, 1200):
            words = (name, "size 12", "axis 2", f"got {height}", "edgedl inspect")
            with refused(BadInputError, *words):
                runner(np.zeros((2, 3, height, 12), np.float32))


@pytest.mark.parametrize("name", ["ort-float32", "tflite-int8"])
def test_its_own_length_runs_in_any_batch(open_free, images, name):
    with open_free(name) as runner:
        (whole,) = runner(images)
        (one,) = runner(images[:1])
    assert whole.shape == (8, 4)
    np.testing.assert_allclose(one, whole[:1], atol=1e-6)


def test_sizes_that_the_network_fixes_are_refused_first(refused, open_free):
    with open_free("ort-float32") as runner, refused(BadInputError, "'x' must be [N, 3, N, 12]"):
        runner(np.zeros((2, 3, 13, 13), np.float32))


def test_length_of_nothing_is_refused(refused, open_free):
    with open_free("ort-float32") as runner, refused(BadInputError, "[2, 3, 0, 12]"):
        runner(np.zeros((2, 3, 0, 12), np.float32))
