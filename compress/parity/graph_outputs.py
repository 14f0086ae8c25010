"""What torch graphs compute on the first test samples."""

import itertools
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from torch import fx

from edgedl.compress.graph.run import run_graph
from edgedl.runtime.backend import Array
from edgedl.runtime.precision import Precision
from edgedl.runtime.task.batch_size import fitting_size
from edgedl.runtime.task.task import Task
from edgedl.runtime.tensors import Floats

PARITY_SAMPLES = 500
# Samples after which a file that is far from every limit has been seen enough; floats differ alike
# on all samples.
FIRST_SAMPLES = 100
FIRST_SAMPLES_OF_FLOATS = 50
# Large samples, of which few are computed at a time, have many values each: fewer are enough.
FIRST_BATCHES = 20
FIRST_BATCHES_OF_FLOATS = 10
# Outputs are kept while a file is held against them: at most 200 MB, of so many samples at least.
MOST_VALUES = 50_000_000
LEAST_SAMPLES = 8


class GraphOutputs:
    """What torch graphs compute on the first test samples; each graph runs once on each.

    Attributes:
        samples: most that are looked at.
    """

    def __init__(self, task: Task, samples: int = PARITY_SAMPLES) -> None:
        """Remember the task; nothing runs yet."""
        self._task, self.samples = task, samples
        # By identity; the graph is kept, so that no other one gets the same.
        self._found: dict[int, tuple[fx.GraphModule, list[tuple[Floats, ...]]]] = {}

    @cached_property
    def inputs(self) -> list[tuple[Array, ...]]:
        """Batches of inputs [B, ...]."""
        return list(_inputs(self._task, self.samples))

    def limit(self, graph: fx.GraphModule) -> None:
        """Take fewer samples where the outputs of all would not fit into memory."""
        (first, *_) = self.inputs
        one = run_graph(graph, tuple(x[:1] for x in first))
        fitting = MOST_VALUES // max(1, sum(y.size for y in one))
        if fitting < self.samples:
            self.samples = max(LEAST_SAMPLES, fitting)
            del self.inputs

    def first_samples(self, precision: Precision) -> int:
        """Return how many samples are looked at before it is known whether more are needed."""
        size = len(self.inputs[0][0])
        if precision.is_float:
            return min(FIRST_SAMPLES_OF_FLOATS, FIRST_BATCHES_OF_FLOATS * size)
        return min(FIRST_SAMPLES, FIRST_BATCHES * size)

    def first(self, samples: int) -> list[tuple[Array, ...]]:
        """Return the batches of the first samples, so many or a few more."""
        before = itertools.accumulate((len(batch[0]) for batch in self.inputs), initial=0)
        return [batch for batch, seen in zip(self.inputs, before, strict=False) if seen < samples]

    def joined(self, samples: int) -> tuple[Array, ...]:
        """Return the inputs of the first samples [N, ...], so many if there are."""
        columns = zip(*self.first(samples), strict=True)
        return tuple(np.concatenate(column)[:samples] for column in columns)

    def of(self, graph: fx.GraphModule, samples: int) -> list[tuple[Floats, ...]]:
        """Return a graph's outputs for the batches of ``first``."""
        _, found = self._found.setdefault(id(graph), (graph, []))
        wanted = self.first(samples)
        found += [run_graph(graph, inputs) for inputs in wanted[len(found) :]]
        return found[: len(wanted)]


def _inputs(task: Task, samples: int) -> Iterator[tuple[Array, ...]]:
    seen = 0
    for batch in task.batches("test", min(FIRST_SAMPLES_OF_FLOATS, fitting_size(task, "test"))):
        if seen >= samples:
            return
        seen += len(batch.labels)
        yield batch.inputs
