"""Who trains: this process alone, or several that torchrun started, each on its share."""

import os
from typing import Any, Protocol

from torch import Tensor, nn


class Processes(Protocol):
    """The processes of a run; all of them hold the same weights."""

    @property
    def count(self) -> int:
        """Return how many there are."""
        ...

    @property
    def writes(self) -> bool:
        """Say whether this process writes the files and talks."""
        ...

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return what to call in place of a module, so that gradients are those of all."""
        ...

    def share(self, batch: Any) -> Any:
        """Return this process's samples of a batch: tensors [B, ...], in tuples or not."""
        ...

    def weigh(self, value: Tensor, share: Any, batch: Any) -> Tensor:
        """Return a mean over a share so that the mean over processes is that of the batch."""
        ...

    def mean(self, value: Tensor) -> float:
        """Return the mean over the processes of a scalar that each has."""
        ...

    def from_writer(self, value: float) -> float:
        """Return the number that the process that writes has."""
        ...

    def end(self) -> None:
        """Part."""
        ...


class OneProcess:
    """This process alone; it costs nothing."""

    count = 1
    writes = True

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module."""
        return module

    def share(self, batch: Any) -> Any:
        """Return the batch."""
        return batch

    def weigh(self, value: Tensor, share: Any, batch: Any) -> Tensor:
        """Return the value."""
        return value

    def mean(self, value: Tensor) -> float:
        """Return the number."""
        return value.item()

    def from_writer(self, value: float) -> float:
        """Return the number."""
        return value

    def end(self) -> None:
        """Do nothing."""


def torchrun_processes() -> Processes:
    """Return the processes that torchrun started this one with, or this one alone.

    Raises:
        BackendUnavailableError: there are several, and accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return OneProcess()
    from edgedl.compress.training.data_parallel import DataParallel

    return DataParallel()
