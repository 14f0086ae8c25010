"""How much of its score a network has lost on its way, measured on the file of ONNX Runtime."""

import math
from dataclasses import dataclass

import numpy as np

from edgedl.compress.artifacts.loaded_file import build_and_load
from edgedl.compress.recipe.recipe import Budget
from edgedl.compress.state import ModelState
from edgedl.compress.targets.target import REFERENCE
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.measure.estimate import Estimate
from edgedl.runtime.measure.score_intervals import paired_drop, samples_to_decide
from edgedl.runtime.precision import FLOAT32, Precision
from edgedl.runtime.task.batch_size import fitting_batches
from edgedl.runtime.task.task import Scores, Task
from edgedl.runtime.wording import counted, points


@dataclass(frozen=True)
class Verdict:
    """A drop, held against a budget.

    Attributes:
        drop: of the score, a share; the interval has the budget's confidence, and is infinite
            where there are too few samples for one.
        budget: that it is held against.
        samples: that were scored.
        more_samples: how many more should decide where the interval reaches over the budget, but
            what was lost does not, or where there is no interval.
    """

    drop: Estimate
    budget: Budget
    samples: int
    more_samples: int | None = None

    @property
    def met(self) -> bool:
        """Say whether the upper end of the interval is within the budget."""
        return 100 * self.drop.hi <= self.budget.max_drop_pp

    def __str__(self) -> str:
        """Say what was lost, of how much that may be."""
        lost, lo, hi = (100 * x for x in (self.drop.value, self.drop.lo, self.drop.hi))
        known = "" if math.isinf(hi) else f" [{points(lo)}, {points(hi)}]"
        more = f", inconclusive: about {self.more_samples} more needed" if self.more_samples else ""
        return (
            f"{points(lost)}{known} points lost on {counted(self.samples, 'sample')}, "
            f"budget {self.budget.max_drop_pp:g}{more}"
        )


class Judge:
    """Holds the states of a recipe against the one it begins with."""

    def __init__(self, start: ModelState, task: Task) -> None:
        """Take the network and the task whose split "test" chooses; the final score has others."""
        self._task = task
        self._reference = self._score(start)

    def verdict(self, state: ModelState, budget: Budget) -> Verdict:
        """Score a state and hold it against a budget.

        Raises:
            ExportError: its file cannot be made.
            BadInputError: ONNX Runtime has no file of its precision.
        """
        scores = self._score(state)
        drop = paired_drop(self._reference, scores, confidence=budget.confidence)
        limit, more = budget.max_drop_pp / 100, None
        if drop.value <= limit < drop.hi or math.isinf(drop.hi):
            more = samples_to_decide(self._reference, scores, limit, budget.confidence)
        return Verdict(drop, budget, len(scores), more)

    def _score(self, state: ModelState) -> Scores:
        file = build_and_load(state, REFERENCE, _precision(state))
        batches = fitting_batches(self._task, "test")
        return np.concatenate([self._task.score(file.run(b.inputs), b.labels) for b in batches])


def _precision(state: ModelState) -> Precision:
    """Return the lowest precision that a state has files of.

    Raises:
        BadInputError: ONNX Runtime cannot run it.
    """
    precision = state.precisions[-1]
    if precision.is_float:
        return FLOAT32
    if precision.name not in REFERENCE.precisions:
        raise BadInputError(
            "a budget is checked on ONNX Runtime's CPU, which cannot run this precision: "
            "remove the stage's budget and use --max-drop"
        )
    return precision
