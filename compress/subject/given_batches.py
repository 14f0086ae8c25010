"""Data as users hold it -- arrays, lists of batches, DataLoaders, generators -- as batches."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler

from edgedl.compress.subject.arguments import ForwardArguments
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.kept_splits import SHARE_OF_FREE, Array, Samples, free_bytes
from edgedl.runtime.task.task import Batch

# Samples of a batch where a data set gives them one by one.
BATCH_SIZE = 64
LABEL_NAMES = ("labels", "label", "targets", "target", "y")


class GivenBatch(NamedTuple):
    """Inputs, each [B, ...], and their labels [B, ...], if there are any."""

    inputs: tuple[Array, ...]
    labels: Array | None

    @property
    def size_bytes(self) -> int:
        """Return the memory that the arrays take."""
        arrays = (*self.inputs, *(() if self.labels is None else (self.labels,)))
        return sum(x.nbytes for x in arrays)


@dataclass(frozen=True)
class BatchReader:
    """Reads what one step of an iteration over a user's data gives.

    Attributes:
        name: what errors call the data.
        arguments: of the module's ``forward``.
    """

    name: str
    arguments: ForwardArguments

    def read(self, given: Any) -> GivenBatch:
        """Return a batch as arrays.

        Args:
            given: an array, ``(x, labels)``, ``(x1, x2, labels)``, ``((x1, x2), labels)``,
                ``Samples``, or a mapping of the names of forward's arguments and "labels".

        Raises:
            BadInputError: it is something else, or its parts have different lengths.
        """
        inputs, labels = self._parts(given)
        arrays = tuple(self._array(f"input {i}", x) for i, x in enumerate(inputs))
        numbers = None if labels is None else self._array("labels", labels)
        lengths = [len(x) for x in (*arrays, *(() if numbers is None else (numbers,)))]
        if len(set(lengths)) > 1:
            parts = "inputs" if numbers is None else "inputs and labels"
            raise BadInputError(
                f"{parts} of a batch of {self.name} have different lengths: "
                f"{', '.join(map(str, lengths))}"
            )
        return GivenBatch(arrays, numbers)

    def _parts(self, given: Any) -> tuple[tuple[Any, ...], Any]:
        if isinstance(given, Samples | Batch):
            return tuple(given.inputs), given.labels
        if isinstance(given, Mapping):
            return self._named(given)
        if _are_numbers(given):
            raise BadInputError(
                f"{self.name} has lists of numbers: give an array, np.array(..., 'float32')"
            )
        if not isinstance(given, tuple | list):
            return (given,), None
        parts = tuple(given)
        if parts and isinstance(parts[0], tuple | list) and len(parts) <= 2:
            return tuple(parts[0]), parts[1] if len(parts) == 2 else None
        labelled = self.arguments.has_labels(len(parts)) if parts else None
        if labelled is None:
            raise BadInputError(
                f"a batch of {self.name} has {len(parts)} parts and the network takes "
                f"{self.arguments}: give one array for each argument, and labels behind them"
            )
        return (parts[:-1], parts[-1]) if labelled else (parts, None)

    def _named(self, given: Mapping[Any, Any]) -> tuple[tuple[Any, ...], Any]:
        names = self.arguments.names
        labels = next((name for name in LABEL_NAMES if name in given and name not in names), None)
        inputs = [name for name in names if name in given]
        unknown = [str(k) for k in given if k not in inputs and k != labels]
        if unknown or inputs != list(names[: len(inputs)]) or len(inputs) < self.arguments.required:
            raise BadInputError(
                f"a batch of {self.name} has {', '.join(map(str, given))} and the network takes "
                f"{self.arguments}: name one array for each argument, and 'labels'"
            )
        return tuple(given[name] for name in inputs), None if labels is None else given[labels]

    def _array(self, what: str, given: Any) -> Array:
        if isinstance(given, Tensor):
            given = given.detach().cpu()
            half = given.dtype in (torch.half, torch.bfloat16)
            given = (given.float() if half else given).numpy()
        try:
            array = np.asarray(given)
        except (TypeError, ValueError) as error:
            raise BadInputError(f"{what} of {self.name}: {error}") from error
        if array.ndim == 0 or array.dtype.kind not in "biuf":
            kind = f"{array.dtype} {list(array.shape)}" if array.ndim else type(given).__name__
            raise BadInputError(
                f"{what} of a batch of {self.name} is {kind}: it must be an array or tensor of "
                "numbers, [N, ...]"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            sample = int(np.argwhere(~np.isfinite(array))[0][0])
            raise BadInputError(
                f"{what} of {self.name} is not finite in sample {sample} of a batch"
            )
        if array.dtype == np.uint8 and what.startswith("input"):
            raise BadInputError(
                f"{what} of {self.name} is uint8: give float32 arrays as the network is to get on "
                "the device, or a Subject whose task has an ImagePreprocessing"
            )
        return array


def _are_numbers(given: Any) -> bool:
    """Say whether something is a list of numbers, or of lists of them, and so on."""
    first = given
    while isinstance(first, list | tuple) and first:
        first = first[0]
    return isinstance(given, list | tuple) and isinstance(first, int | float)


def open_data(name: str, data: Any, reader: BatchReader) -> "KeptBatches":
    """Return a user's data as batches that can be read again and again, in one order.

    Args:
        name: what errors call it.
        data: an array or tensor [N, ...]; a tuple of arrays, the last of labels if the module does
            not take so many; a mapping of such; a data set; or anything that can be iterated over
            and gives batches: a list, a DataLoader, a generator.
        reader: of its batches.

    Raises:
        BadInputError: it is none of these.
    """
    if isinstance(data, np.ndarray | Tensor | Mapping | tuple):
        return KeptBatches(name, lambda: iter((data,)), reader, length=1)
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        data = DataLoader(data, batch_size=BATCH_SIZE)
    if isinstance(data, str) or not isinstance(data, Iterable):
        raise BadInputError(
            f"{name} is {'None' if data is None else 'a ' + type(data).__name__}: it must be "
            "arrays, a DataLoader, or a list of batches"
        )
    if iter(data) is data:
        # A generator gives its batches once.
        return KeptBatches(name, lambda: data, reader, once=True)
    try:
        length = len(data)  # type: ignore[arg-type]
    except TypeError:
        length = None
    shuffled = isinstance(data, DataLoader) and isinstance(data.sampler, RandomSampler)
    return KeptBatches(name, lambda: iter(data), reader, length, once=shuffled)


class KeptBatches:
    """Batches that are read when they are needed, and kept if they fit into the memory.

    What takes more than a quarter of the free memory is read anew every time, which only works
    where the order is the same every time.
    """

    def __init__(
        self,
        name: str,
        begin: Callable[[], Iterator[Any]],
        reader: BatchReader,
        length: int | None = None,
        once: bool = False,
    ) -> None:
        """Take where batches come from.

        Args:
            name: what errors call the data.
            begin: starts an iteration.
            reader: of what it gives.
            length: number of batches, if it is known.
            once: whether a second iteration would give others, or none.
        """
        self._name, self._begin, self._reader = name, begin, reader
        self._length, self._once = length, once
        self._kept: list[GivenBatch] = []
        self._rest: Iterator[Any] | None = None
        self._ended = False
        self._size, self._limit = 0, SHARE_OF_FREE * free_bytes()

    def __iter__(self) -> Iterator[GivenBatch]:
        """Yield every batch.

        Raises:
            BadInputError: one is not what a batch is, they have different shapes, or they neither
                fit into the memory nor can be read again.
        """
        index = 0
        while index < len(self._kept) or self._read_more():
            yield self._kept[index]
            index += 1
            if not self._fits():
                yield from self._streamed(index)
                return

    @property
    def first(self) -> GivenBatch:
        """Return the first batch.

        Raises:
            BadInputError: there is none.
        """
        batch = next(iter(self), None)
        if batch is None or not len(batch.inputs[0]):
            raise BadInputError(f"{self._name} has no samples")
        return batch

    def _read_more(self) -> bool:
        """Read and keep another batch; say whether there was one."""
        if self._ended:
            return False
        if self._rest is None:
            self._rest = self._begin()
        given = next(self._rest, _END)
        if given is _END:
            self._ended = True
            return False
        batch = self._reader.read(given)
        if self._kept:
            self._check_like_first(batch)
        self._kept.append(batch)
        self._size += batch.size_bytes
        return True

    def _fits(self) -> bool:
        """Say whether all batches can be kept.

        Raises:
            BadInputError: they cannot, and not be read again either.
        """
        total = self._size if self._length is None else self._length * self._kept[0].size_bytes
        if total <= self._limit:
            return True
        if not self._once:
            return False
        if self._size <= self._limit:
            return True
        raise BadInputError(
            f"{self._name} takes more than {self._limit / 1e9:.1f} GB, a quarter of the free "
            "memory, and gives other batches when it is read again: give a DataLoader without "
            "shuffle=True"
        )

    def _streamed(self, index: int) -> Iterator[GivenBatch]:
        """Yield the batches from ``index`` on without keeping them."""
        del self._kept[1:]
        self._rest, self._ended = None, False
        for number, given in enumerate(self._begin()):
            if number >= index:
                batch = self._reader.read(given)
                self._check_like_first(batch)
                yield batch

    def _check_like_first(self, batch: GivenBatch) -> None:
        first = self._kept[0]
        shapes = [[list(x.shape[1:]) for x in b.inputs] for b in (first, batch)]
        if shapes[0] != shapes[1]:
            raise BadInputError(
                f"batches of {self._name} have samples of different shapes, {shapes[0]} and "
                f"{shapes[1]}: pad or crop them to one"
            )
        if (first.labels is None) != (batch.labels is None):
            raise BadInputError(f"some batches of {self._name} have labels and others have none")


_END = object()
