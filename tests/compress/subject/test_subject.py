"""What a subject hands to the tracer."""

import numpy as np
import pytest
import torch
from small_networks import noise_task
from tiny import make_subject

from edgedl.compress.subject.subject import Subject
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.task import ArrayTask, Samples


def test_example_inputs_are_the_first_two_calibration_samples() -> None:
    subject = make_subject()
    (x,) = subject.example_inputs()
    first = next(iter(subject.task.batches("calibration", 5))).inputs[0]
    assert x.dtype == torch.float32
    assert x.shape == (2, 3, 12, 12)
    assert np.array_equal(x.numpy(), first[:2])


def test_one_tensor_per_input() -> None:
    subject = Subject("two", torch.nn.Identity(), noise_task((3, 4), (2,)))
    first, second = subject.example_inputs()
    assert (first.shape, second.shape) == ((2, 3, 4), (2, 2))


def test_tensors_share_no_memory_with_the_tasks_data() -> None:
    data = np.ones((4, 3), np.float32)
    task = ArrayTask("ones", {"calibration": lambda: Samples((data,), np.zeros(4))})
    (x,) = Subject("ones", torch.nn.Identity(), task).example_inputs()
    x.zero_()
    assert (data == 1).all()


@pytest.mark.parametrize("dtype", ["float16", "int16", "uint8"])
def test_inputs_of_another_type_are_refused(dtype: str) -> None:
    def split() -> Samples:
        return Samples((np.zeros((4, 3), np.float32), np.zeros((4, 3), dtype)), np.zeros(4))

    task = ArrayTask("typed", {"calibration": split})
    with pytest.raises(
        BadInputError, match=rf"input 1 of task 'typed', split 'calibration', is {dtype}"
    ):
        Subject("typed", torch.nn.Identity(), task).example_inputs()


def test_a_split_without_samples_is_refused() -> None:
    task = ArrayTask("empty", {"calibration": lambda: Samples((np.zeros((0, 3)),), np.zeros(0))})
    with pytest.raises(BadInputError, match="0 labels"):
        Subject("empty", torch.nn.Identity(), task).example_inputs()


@pytest.mark.parametrize(
    ("dtype", "said"),
    [
        ("float16", "input 0 of task 'typed', split 'test', is float16"),
        ("int64", "are int64 in the split 'test' and float32 in 'calibration'"),
    ],
)
def test_test_inputs_of_another_type_are_refused(dtype: str, said: str) -> None:
    def split(dtype: str) -> Samples:
        return Samples((np.zeros((4, 3), dtype),), np.zeros(4))

    splits = {"calibration": lambda: split("float32"), "test": lambda: split(dtype)}
    with pytest.raises(BadInputError, match=said):
        Subject("typed", torch.nn.Identity(), ArrayTask("typed", splits)).check_test_inputs()
