"""How many samples of a task to compute at a time."""

from collections.abc import Iterator, Sequence

from edgedl.runtime.task.task import Array, Batch, Task

# Most values of a batch's inputs. What a network computes inside is some ten times as much; more of
# it than the processor's caches hold takes memory, and time besides.
MOST_VALUES = 2**17
# Divisors of a hundred: few data sets leave a last batch of another size, which costs some runtimes
# another compilation.
SIZES = (100, 50, 25, 10, 5)
# Many networks squeeze the batch away where it is 1.
SMALLEST = 2


def fitting_batches(task: Task, split: str) -> Iterator[Batch]:
    """Yield a split in batches of the size that suits its samples."""
    return task.batches(split, fitting_size(task, split))


def fitting_size(task: Task, split: str) -> int:
    """Return the samples of a batch; the first sample of the split is read."""
    first = next(iter(task.batches(split, 1)), None)
    return SMALLEST if first is None else fitting_count(first.inputs)


def fitting_count(inputs: Sequence[Array]) -> int:
    """Return how many samples such as these to compute at a time; inputs are [N, ...], N >= 1."""
    values = sum(x[0].size for x in inputs)
    return next((n for n in SIZES if n * values <= MOST_VALUES), SMALLEST)
