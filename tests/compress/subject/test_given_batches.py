"""Data in every form that users hold it in become the same batches."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from edgedl.compress.subject import given_batches
from edgedl.compress.subject.arguments import ForwardArguments
from edgedl.compress.subject.given_batches import BatchReader, KeptBatches, open_data
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.task import Samples

X = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = np.arange(6)


class One(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Masked(nn.Module):
    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        return ids


class Two(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Many(nn.Module):
    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0]


def opened(data: object, module: nn.Module | None = None) -> KeptBatches:
    return open_data("test", data, BatchReader("test", ForwardArguments.of(module or One())))


def joined(batches: KeptBatches) -> tuple[Any, Any]:
    every = list(batches)
    labels = [b.labels for b in every]
    inputs = [np.concatenate(parts) for parts in zip(*(b.inputs for b in every), strict=True)]
    return inputs, None if labels[0] is None else np.concatenate(labels)


def pairs() -> Iterator[tuple[Tensor, Tensor]]:
    for start in (0, 2, 4):
        yield torch.from_numpy(X[start : start + 2]), torch.from_numpy(Y[start : start + 2])


class Rows(Dataset[tuple[Any, int]]):
    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return X[index], int(Y[index])


class Stream(IterableDataset[tuple[Any, int]]):
    def __iter__(self) -> Iterator[tuple[Any, int]]:
        return iter(zip(X, Y.tolist(), strict=True))


LABELLED = {
    "tuple of arrays": (X, Y),
    "tuple of tensors": (torch.from_numpy(X), torch.from_numpy(Y)),
    "Samples": Samples((X,), Y),
    "list of batches": list(pairs()),
    "generator": pairs(),
    "loader": DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=4),
    "data set": Rows(),
    "stream in a loader": DataLoader(Stream(), batch_size=4),
    "mapping": {"x": X, "labels": Y},
    "list of mappings": [{"x": X[:3], "label": Y[:3]}, {"x": X[3:], "label": Y[3:]}],
    "nested": [((X[:3],), Y[:3]), ((X[3:],), Y[3:])],
}


@pytest.mark.parametrize("data", LABELLED.values(), ids=LABELLED)
def test_labelled_data_in_every_form(data: object) -> None:
    batches = opened(data)
    for _ in range(2):
        (x,), y = joined(batches)
        np.testing.assert_array_equal(x, X)
        np.testing.assert_array_equal(y, Y)


@pytest.mark.parametrize("data", [X, torch.from_numpy(X), [X[:4], X[4:]], {"x": X}, ((X,),)])
def test_unlabelled_data(data: object) -> None:
    (x,), y = joined(opened(data))
    np.testing.assert_array_equal(x, X)
    assert y is None


def test_a_second_argument_with_a_default_is_taken_for_labels_unless_it_is_nested() -> None:
    _, labels = joined(opened((X, Y), Masked()))
    np.testing.assert_array_equal(labels, Y)
    both, labels = joined(opened([((X, X), Y)], Masked()))
    assert len(both) == 2
    both, labels = joined(opened((X, X, Y), Masked()))
    assert len(both) == 2
    np.testing.assert_array_equal(labels, Y)


def test_two_inputs() -> None:
    assert joined(opened((X, X), Two()))[1] is None
    np.testing.assert_array_equal(joined(opened((X, X, Y), Two()))[1], Y)
    both, labels = joined(opened({"b": X + 1, "a": X, "y": Y}, Two()))
    np.testing.assert_array_equal(both[1], X + 1)
    np.testing.assert_array_equal(labels, Y)


def test_star_args_take_the_last_part_for_labels() -> None:
    both, labels = joined(opened((X, X, Y), Many()))
    assert len(both) == 2
    assert labels is not None


def test_half_precision_becomes_float32() -> None:
    (x,), _ = joined(opened(torch.from_numpy(X).bfloat16()))
    assert x.dtype == np.float32


def test_a_shuffling_loader_keeps_one_order() -> None:
    data = TensorDataset(torch.arange(1000.0).reshape(-1, 1))
    batches = opened(DataLoader(data, batch_size=10, shuffle=True))
    np.testing.assert_array_equal(joined(batches)[0][0], joined(batches)[0][0])


def test_a_reader_that_stops_early_leaves_the_rest() -> None:
    batches = opened(pairs())
    assert batches.first.labels is not None
    next(iter(batches))
    (x,), _ = joined(batches)
    np.testing.assert_array_equal(x, X)


def test_what_does_not_fit_into_memory_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given_batches, "free_bytes", lambda: 100.0)
    batches = opened(list(pairs()))
    for _ in range(2):
        (x,), y = joined(batches)
        np.testing.assert_array_equal(x, X)
        np.testing.assert_array_equal(y, Y)
    assert len(batches._kept) == 1


class Endless(IterableDataset[Tensor]):
    """Whose length nobody knows; it can be read again."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter(torch.from_numpy(X))


def test_a_stream_that_does_not_fit_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given_batches, "free_bytes", lambda: 80.0)
    batches = opened(DataLoader(Endless(), batch_size=2))
    for _ in range(2):
        np.testing.assert_array_equal(joined(batches)[0][0], X)


def test_a_generator_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given_batches, "free_bytes", lambda: 100.0)
    with pytest.raises(BadInputError, match=r"takes more than .* give a DataLoader without"):
        list(opened(pairs()))


WRONG = {
    "None": (None, "test is None"),
    "a number": (3, "test is a int"),
    "a text": ("pictures", "test is a str"),
    "no batches": ([], "test has no samples"),
    "an empty array": (X[:0], "test has no samples"),
    "a generator that has ended": (iter([]), "test has no samples"),
    "lengths": ((X, Y[:3]), "different lengths: 6, 3"),
    "too many parts": ((X, X, X, Y), r"has 4 parts and the network takes forward\(x\)"),
    "unknown keys": ({"pixels": X}, r"has pixels and the network takes forward\(x\)"),
    "texts as labels": ((X, np.array(list("abcdef"))), "labels of a batch of test is <U1"),
    "objects": ([object()], "input 0 of a batch of test is object"),
    "shapes": ([X, X[:, :1]], r"different shapes, \[\[2\]\] and \[\[1\]\]"),
    "lists of numbers": (([[1.0, 2.0]] * 3, [0, 1, 0]), "give an array"),
    "a list of lists": ([[1.0, 2.0]] * 3, "give an array"),
    "pixels of 8 bits": (np.zeros((2, 2), np.uint8), "is uint8: give float32"),
    "not finite": (np.array([[0.0], [np.nan]]), "input 0 of test is not finite in sample 1"),
    "labels here and there": ([(X, Y), X], "some batches of test have labels"),
}


@pytest.mark.parametrize(("data", "says"), WRONG.values(), ids=WRONG)
def test_what_is_no_data_is_said_in_one_line(data: object, says: str) -> None:
    def read() -> None:
        batches = opened(data)
        _ = batches.first
        list(batches)

    with pytest.raises(BadInputError, match=says) as error:
        read()
    assert "\n" not in str(error.value)
