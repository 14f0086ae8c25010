"""The layout in memory of the pictures that a network gets: channels last, where it takes them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# What torch says where a network views as rows what a convolution gave.
_VIEWED = "view size is not compatible"


class ChannelsLast:
    """Gives a network pictures with their channels last in memory, and holds its weights so.

    Values and shapes are the same; kernels of processors are faster.
    """

    def __init__(self, module: nn.Module, weights: bool = True) -> None:
        """Take a network; one without weights [O, I, H, W] gets its inputs as they are.

        Args:
            module: the network.
            weights: whether to lay out its weights, too, in place.
        """
        self._module = module
        self._weights = weights
        self._tried = False
        self._used = any(p.dim() == 4 for p in module.parameters())
        if self._used and weights:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def lay_out(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the inputs of a batch as the network takes them.

        The first batch shows whether it does: one that views channels-last pictures as rows, which
        torch refuses, gets them as they are from then on.
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
                self._used = False
                return tuple(inputs)
        return moved

    def end(self) -> None:
        """Give the weights their usual layout back."""
        if self._used and self._weights:
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
