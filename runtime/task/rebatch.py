"""Batches of another size, of the same samples in the same order."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from edgedl.runtime.task.task import Batch


def rebatched(parts: Iterable[Batch], batch_size: int) -> Iterator[Batch]:
    """Yield the samples of some batches in batches of one size; the last may be smaller.

    >>> parts = [Batch((np.arange(3),), np.arange(3)), Batch((np.arange(2),), np.arange(2))]
    >>> [batch.labels.tolist() for batch in rebatched(parts, 2)]
    [[0, 1], [2, 0], [1]]
    """
    waiting: list[Batch] = []
    count = 0
    for batch in parts:
        waiting.append(batch)
        count += len(batch.labels)
        if count >= batch_size:
            joined = _joined(waiting)
            end = count - count % batch_size
            for start in range(0, end, batch_size):
                yield _cut(joined, slice(start, start + batch_size))
            count -= end
            waiting = [_cut(joined, slice(end, None))] if count else []
    if count:
        yield _joined(waiting)


def _joined(batches: Sequence[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    inputs = zip(*(b.inputs for b in batches), strict=True)
    return Batch(
        tuple(np.concatenate(parts) for parts in inputs),
        np.concatenate([b.labels for b in batches]),
    )


def _cut(batch: Batch, rows: slice) -> Batch:
    return Batch(tuple(x[rows] for x in batch.inputs), batch.labels[rows])
