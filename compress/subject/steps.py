"""Subjects with a state, taken apart into single steps: what is traced, calibrated and compared."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from edgedl.compress.subject.outputs import as_tuple
from edgedl.compress.subject.subject import Subject
from edgedl.compress.subject.untouched import evaluating
from edgedl.runtime.backend import Array
from edgedl.runtime.bundle.state import State
from edgedl.runtime.steps import Steps, run_sequences
from edgedl.runtime.task.rebatch import rebatched
from edgedl.runtime.task.task import Batch, Task, WrappedTask

# Samples that are taken of a sequence, evenly over its steps.
OF_A_SEQUENCE = 16
# Sequences that are run at a time.
TOGETHER = 8


def by_steps(subject: Subject) -> Subject:
    """Return the subject with a task of single steps; itself where it has no state."""
    if not subject.states:
        return subject
    return replace(subject, task=step_task(subject, subject.task))


def step_task(subject: Subject, task: Task) -> Task:
    """Return a task of single steps of another one's sequences; itself without a state."""
    return StepTask(task, subject.module, subject.states) if subject.states else task


def over_sequences(subject: Subject) -> nn.Module:
    """Return the module for whole sequences, as its task has them; itself without a state."""
    return OverSequences(subject.module, subject.states) if subject.states else subject.module


class StepTask(WrappedTask):
    """Single steps of a task's sequences, with the state that the float network has there.

    A batch of the other task has sequences [N, T, ...] and labels [N, T, ...]; one of this has the
    inputs of steps [N, 1, ...], the states behind them, and labels [N, 1, ...].
    """

    def __init__(self, task: Task, module: nn.Module, states: Sequence[State]) -> None:
        """Take sequences, and the network whose states are used."""
        super().__init__(task)
        self._module, self._states = module, tuple(states)

    @property
    def splits(self) -> Collection[str]:
        """Return the names of the splits."""
        return self._task.splits

    def batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """Yield some steps of each sequence, in the same order for every batch size."""
        yield from rebatched(self._steps(split), batch_size)

    def _steps(self, split: str) -> Iterator[Batch]:
        """Yield the chosen steps of some sequences, one step of all of them after the other."""
        seen = 0
        for batch in self._task.batches(split, TOGETHER):
            wanted = _chosen(batch.labels.shape[1], seen)
            seen += len(batch.labels)
            kept: list[tuple[Array, ...]] = []

            def network(*inputs: Array, kept: list[tuple[Array, ...]] = kept) -> list[Array]:
                kept.append(inputs)
                return _compute(self._module, inputs)

            steps = Steps(network, self._states)
            for t in range(max(wanted) + 1):
                steps(*(x[:, t : t + 1] for x in batch.inputs))
                if t in wanted:
                    yield Batch(kept[-1], batch.labels[:, t : t + 1])
                kept.clear()


class OverSequences(nn.Module):
    """A network with a state that takes whole sequences, and begins each with a state of zeros."""

    def __init__(self, module: nn.Module, states: Sequence[State]) -> None:
        """Take a network for single steps."""
        super().__init__()
        self.module = module
        self._states = tuple(states)

    def forward(self, *sequences: Tensor) -> tuple[Tensor, ...]:
        """Map sequences [N, T, ...] to the outputs without the state, [N, T, ...] each."""
        arrays = [x.numpy() for x in sequences]
        found = run_sequences(lambda *x: _compute(self.module, x), self._states, arrays)
        return tuple(torch.from_numpy(y) for y in found)


def _compute(module: nn.Module, inputs: Sequence[Array]) -> list[Array]:
    with evaluating(module), torch.no_grad():
        outputs = as_tuple(module(*(torch.from_numpy(np.ascontiguousarray(x)) for x in inputs)))
    return [y.numpy() for y in outputs]


def _chosen(length: int, shift: int) -> list[int]:
    """Return steps evenly over a sequence, others for each group of sequences."""
    stride = max(1, length // OF_A_SEQUENCE)
    return list(range(shift % stride, length, stride))
