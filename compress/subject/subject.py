"""What is being compressed: a module and the task it serves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgedl.compress.device import CPU
from edgedl.compress.subject.unwrap import unwrap
from edgedl.runtime.backend import Array
from edgedl.runtime.bundle.state import State
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.checked_task import CheckedTask
from edgedl.runtime.task.task import Task

Augment = Callable[[Tensor, torch.Generator], Tensor]
# The module's output, or the tuple of them, and labels [B, ...] to the mean over the samples.
Loss = Callable[[Any, Tensor], Tensor]

# Values, and ids of words or categories.
INPUT_TYPES = ("float32", "int64", "int32")


@dataclass(frozen=True)
class Subject:
    """A trained network with its data.

    Attributes:
        name: what bundle and report call it.
        module: the network; it takes tensors [N, ...], float32 or ids, and returns float32 ones,
            in tuples, dicts and dataclasses as it likes. It is taken out of ``torch.compile`` and
            of wrappers like DistributedDataParallel.
        task: data splits and score; a user's own class behind a ``CheckedTask``. float64 inputs
            become float32.
        free_axes: axes of every input whose size may differ from call to call: 0, the batch, and
            for sequences also 1, the time. Runtimes with fixed shapes get the calibration's.
        augment: maps the first input [B, ...] of a training batch to a randomly changed one whose
            labels are still true; None leaves training data as it is.
        licence: of the weights, for the manifest.
        data: provenance of the data, for the manifest.
        teachers: what fine_tune distils in place of the network itself: modules of the same inputs
            and outputs, usually larger; of several the mean.
        states: what the network keeps from one step of a sequence to the next: its last inputs and
            last outputs, in this order. The task then has sequences [N, T, ...] of the other
            inputs, and scores outputs [N, T, ...]; the module takes steps of them, [N, 1, ...].
        loss: what training makes small besides the distance from the teacher: maps the module's
            output, a tuple where there are several, and the labels of a batch to a tensor of one
            number. None is cross-entropy where the task has classes; elsewhere the teacher alone
            is learned from.
        device: where stages train, such as ``torch.device("cuda")``. Module and teachers are given
            on the CPU, where everything else is computed.
    """

    name: str
    module: nn.Module
    task: Task
    licence: str = "not stated"
    data: str = "not stated"
    free_axes: tuple[int, ...] = (0,)
    augment: Augment | None = None
    teachers: tuple[nn.Module, ...] = ()
    device: torch.device = CPU
    loss: Loss | None = None
    states: tuple[State, ...] = ()

    def __post_init__(self) -> None:
        """Take modules out of their wrappers, have the task checked, take a device by its name.

        Raises:
            BadInputError: the loss is no function.
        """
        object.__setattr__(self, "module", unwrap(self.module))
        object.__setattr__(self, "teachers", tuple(unwrap(t) for t in self.teachers))
        object.__setattr__(self, "task", CheckedTask.of(self.task))
        object.__setattr__(self, "device", torch.device(self.device))
        if self.loss is not None and not callable(self.loss):
            raise BadInputError(
                f"the loss of the subject '{self.name}' is {type(self.loss).__name__}: it must be "
                "a function, (outputs, labels) -> tensor of one number"
            )

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return the first two calibration samples, one tensor [2, ...] per input.

        Raises:
            BadInputError: an input is of a type that no file takes.
        """
        return tuple(torch.tensor(x) for x in self._first_inputs("calibration", 2))

    def check_test_inputs(self) -> None:
        """Look at the first test sample before hours go by.

        Raises:
            BadInputError: its inputs are not of the types of the calibration split's.
        """
        known = self._first_inputs("calibration", 1)
        found = self._first_inputs("test", 1)
        if [x.dtype for x in found] != [x.dtype for x in known]:
            raise BadInputError(
                f"the inputs of task '{self.task.name}' are {_types(found)} in the split 'test' "
                f"and {_types(known)} in 'calibration'"
            )

    def _first_inputs(self, split: str, count: int) -> tuple[Array, ...]:
        batch = next(iter(self.task.batches(split, count)))
        for index, x in enumerate(batch.inputs):
            if str(x.dtype) not in INPUT_TYPES:
                raise BadInputError(
                    f"input {index} of task '{self.task.name}', split '{split}', is {x.dtype}, "
                    f"expected one of {', '.join(INPUT_TYPES)}"
                )
        return batch.inputs


def _types(inputs: tuple[Array, ...]) -> str:
    return ", ".join(str(x.dtype) for x in inputs)
