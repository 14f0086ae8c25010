"""How long a stage takes, from small versions of it that are timed here and now."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from edgedl.compress.state import ModelState

# Units of work in the two small versions; what the second takes longer is the price of the rest.
FEW, MORE = 2, 6


class Applicable(Protocol):
    """A stage, or a smaller version of it."""

    def apply(self, state: ModelState) -> ModelState:
        """Return the next state."""
        ...


@dataclass(frozen=True)
class Work:
    """How the work of a stage scales.

    Attributes:
        units: of work, such as batches.
        smaller: returns the stage with fewer units.
    """

    units: int
    smaller: Callable[[int], Applicable]


@dataclass(frozen=True)
class Estimated:
    """What a stage will take, and a state to estimate the next one from.

    Attributes:
        seconds: None where that is not known before it runs.
        state: after the stage, or after a small version of it.
        whole: whether that was the stage itself.
    """

    seconds: float | None
    state: ModelState
    whole: bool = False


def estimate(stage: Applicable, work: Work | None, state: ModelState) -> Estimated:
    """Estimate the time of a stage on this machine, other work on it included.

    Networks are pruned in full before the next stage is estimated only where that needs no timing,
    so training after a speed-up is estimated too long.

    Args:
        stage: to estimate.
        work: how it scales; None does all of it.
        state: that it is applied to.

    Raises:
        EdgedlError: the stage cannot be applied to this network.
    """
    if work is None:
        seconds, after = _timed(stage, state)
        return Estimated(seconds, after, whole=True)
    # The first call also pays for what is loaded and prepared once.
    work.smaller(1).apply(state)
    few, _ = _timed(work.smaller(min(FEW, work.units)), state)
    larger = work.smaller(min(MORE, work.units))
    more, after = _timed(larger, state)
    price = max(0.0, more - few) / max(1, min(MORE, work.units) - min(FEW, work.units))
    return Estimated(more + price * max(0, work.units - MORE), after, whole=larger == stage)


def _timed(stage: Applicable, state: ModelState) -> tuple[float, ModelState]:
    start = time.monotonic()
    # As in a run, so that what is kept of the stages behind is found.
    torch.manual_seed(torch.initial_seed())
    after = stage.apply(state)
    return time.monotonic() - start, after
