"""The layout of pictures while a network is trained: channels last, where it takes them so."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# What torch says where a network views as rows what a convolution gave.
_VIEWED = "view size is not compatible"


class ChannelsLast:
    """Holds the weights of 2-D convolutions, and pictures, with their channels last in memory.

    Kernels of processors are up to three times faster so; values and shapes are the same.
    """

    def __init__(self, module: nn.Module) -> None:
        """Lay the weights [O, I, H, W] out; a network without any stays as it is."""
        self._module = module
        self._tried = False
        self._used = any(p.dim() == 4 for p in module.parameters())
        if self._used:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def lay_out(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the inputs of a batch as the network takes them.

        The first batch shows whether it does: where it views channels-last pictures as rows, which
        torch refuses, it is trained as it was.
        """
        if not self._used:
            return tuple(inputs)
        moved = tuple(
            x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for x in inputs
        )
        if not self._tried:
            self._tried = True
            if not _computes(self._module, moved):
                self.end()
                return tuple(inputs)
        return moved

    def end(self) -> None:
        """Give the weights their usual layout back."""
        if self._used:
            self._used = False
            self._module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def _computes(module: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            module(*inputs)
    except RuntimeError as error:
        if _VIEWED not in str(error):
            raise
        return False
    finally:
        module.train(training)
    return True
