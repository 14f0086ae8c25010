"""Weights averaged over the steps of a run."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """An exponential moving average of a network's parameters and float buffers.

    The running statistics of a batch norm are averaged with its weights: they then describe the
    activations of the same stretch of training. Whole numbers, such as a count of batches, and
    tensors that hold infinities, such as a mask of attention, stay those of the network.

    torch's ``AveragedModel`` would copy the module, which a traced network does not stand; its
    averaging function is taken without it.

    Source: Tarvainen, Valpola, "Mean teachers are better role models", 2017, equation 1.

    Attributes:
        tensors: the averages, in the order of the network's parameters and buffers.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Begin with the network's values; ``decay`` is the share of the old average in the new."""
        self._module = module
        # By place: tensors may be replaced, as by a move to another device.
        self._averaged = [bool(tensor.isfinite().all()) for tensor in self._floats()]
        self._blend = get_ema_multi_avg_fn(decay)
        self.tensors = [tensor.detach().clone() for tensor in self._live()]

    @torch.no_grad()
    def update(self) -> None:
        """Let the network's present values in."""
        self._blend(self.tensors, self._live(), 0)

    @torch.no_grad()
    def exchange(self) -> None:
        """Put the averages into the network, and its values in their place."""
        for own, live in zip(self.tensors, self._live(), strict=True):
            kept = live.detach().clone()
            live.copy_(own)
            own.copy_(kept)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the averages in the network for as long as the block runs."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    @torch.no_grad()
    def load(self, tensors: list[Tensor]) -> None:
        """Take averages that were saved."""
        for own, saved in zip(self.tensors, tensors, strict=True):
            own.copy_(saved)

    def _live(self) -> list[Tensor]:
        pairs = zip(self._floats(), self._averaged, strict=True)
        return [tensor for tensor, averaged in pairs if averaged]

    def _floats(self) -> list[Tensor]:
        found = chain(self._module.parameters(), self._module.buffers())
        return [tensor for tensor in found if tensor.is_floating_point()]
