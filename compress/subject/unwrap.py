"""The network inside the wrappers that training scripts leave around it."""

from torch import nn
from torch.optim.swa_utils import AveragedModel

# They hold the network as ``module`` and compute what it computes.
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


def unwrap(module: nn.Module) -> nn.Module:
    """Return what ``torch.compile`` and torch's own wrappers have inside; its mode is its own.

    Layers then have the names that the user gave them.

    >>> inside = nn.Linear(2, 2)
    >>> unwrap(nn.DataParallel(inside)) is inside
    True
    """
    while True:
        compiled = getattr(module, "_orig_mod", None)
        inside = module.module if isinstance(module, WRAPPERS) else compiled
        if not isinstance(inside, nn.Module):
            return module
        module = inside
