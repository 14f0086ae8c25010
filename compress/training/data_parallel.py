"""Several processes that train one network, each on its share of every batch."""

from typing import Any

import torch
from torch import Tensor, nn

from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.install import install_line

try:
    from accelerate import Accelerator
    from accelerate.utils import broadcast
except ImportError as error:
    raise BackendUnavailableError.of(
        error,
        "accelerate is missing, several processes train through it: "
        f"{install_line('distributed')}, or train with one process",
    ) from error


class DataParallel:
    """Data-parallel training on CPUs, through accelerate and torch's DistributedDataParallel.

    Every process draws the whole batch, so that the order and the changes of the samples are those
    of one process, and computes its share of it. Gradients are averaged: without batch norm and
    dropout the weights are those of one process, to rounding. A batch norm sees only the share, as
    with a smaller batch; its running statistics are those of the first process's shares. Dropout
    draws the same mask for each share.

    Source: Li et al., "PyTorch distributed: experiences on accelerating data parallel training",
    2020.
    """

    def __init__(self) -> None:
        """Join the other processes."""
        self._accelerator = Accelerator(cpu=True)

    @property
    def count(self) -> int:
        """Return how many processes torchrun started, on all machines."""
        return int(self._accelerator.num_processes)

    @property
    def writes(self) -> bool:
        """Say whether this is the first process."""
        return bool(self._accelerator.is_main_process)

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module with gradients that are averaged over the processes."""
        wrapped: nn.Module = self._accelerator.prepare_model(module)
        return wrapped

    def share(self, batch: Any) -> Any:
        """Return this process's consecutive samples of a batch.

        Raises:
            BadInputError: there are fewer samples than processes.
        """
        if isinstance(batch, Tensor):
            if len(batch) < self.count:
                raise BadInputError(
                    f"a batch of {len(batch)} samples has none for some of {self.count} "
                    "processes: train with larger batches or fewer processes"
                )
            return batch.tensor_split(self.count)[self._accelerator.process_index]
        parts = [self.share(part) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)

    def weigh(self, value: Tensor, share: Any, batch: Any) -> Tensor:
        """Return a share's mean times its part of the batch, times the number of processes."""
        return value * (_samples(share) * self.count / _samples(batch))

    def mean(self, value: Tensor) -> float:
        """Return the mean over the processes, the same on each."""
        return float(self._accelerator.reduce(value.detach(), "mean"))

    def from_writer(self, value: float) -> float:
        """Return the first process's number."""
        return float(broadcast(torch.tensor(value, dtype=torch.float64)))

    def end(self) -> None:
        """Leave the group of processes."""
        self._accelerator.end_training()


def _samples(batch: Any) -> int:
    return len(batch) if isinstance(batch, Tensor) else _samples(batch[0])
