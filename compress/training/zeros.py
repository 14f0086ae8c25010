"""Zeros that stay zero while a network is trained."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from edgedl.runtime.bundle.manifest import HistoryEntry


def sparse_paths(history: Iterable[HistoryEntry]) -> tuple[str, ...]:
    """Return the paths of the weights that stages have made sparse, each once."""
    found: dict[str, None] = {}
    for entry in history:
        listed = entry.settings["layers"] if "measured_sparsity" in entry.settings else ()
        lines = listed if isinstance(listed, tuple) else ()
        found.update(dict.fromkeys(line.partition("=")[0] for line in lines))
    return tuple(found)


def hold_zeros(weights: Iterable[Tensor]) -> Callable[[int, int, float], None]:
    """Return a hook for the training loop that sets to zero, after every step, what is zero now.

    The gradient of a zero still reaches the optimizer, but never the network that is run.

    Source: Han et al., 2015, section 3.1 (retraining of the remaining weights); the mask is
    applied after the step, so that momentum and weight decay cannot move a zero either.

    Args:
        weights: parameters that are trained in place.
    """
    held = [(weight, weight.detach() == 0) for weight in weights]

    @torch.no_grad()
    def after_step(epoch: int, step: int, loss: float) -> None:
        for weight, zero in held:
            weight.masked_fill_(zero, 0.0)

    return after_step
