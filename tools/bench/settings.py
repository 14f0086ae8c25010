"""What to measure of some files."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.measure.estimate import CONFIDENCE
from edgedl.runtime.measure.measure import Protocol
from edgedl.tools.terminal.parameter_types import MAX_THREADS

COLD_STARTS = 3


def thread_counts(given: int | Sequence[int]) -> tuple[int, ...]:
    """Return one thread count, or several, as Python code gives them."""
    return (given,) if isinstance(given, int) else tuple(given)


@dataclass(frozen=True)
class BenchSettings:
    """What to measure: thread counts (the first decides), the protocol, the drop budget.

    The budget's verdict is of an interval of that confidence.
    """

    threads: tuple[int, ...] = (1, 2)
    protocol: Protocol = field(default_factory=Protocol)
    max_drop_pp: float | None = None
    confidence: float = CONFIDENCE
    cold_starts: int = COLD_STARTS

    def __post_init__(self) -> None:
        """Check what Python code gives; the command line has checked its own.

        Raises:
            BadInputError: thread counts, budget or confidence are out of range.
        """
        whole = all(type(t) is int and 1 <= t <= MAX_THREADS for t in self.threads)
        if not self.threads or not whole:
            raise BadInputError(
                f"threads are whole numbers from 1 to {MAX_THREADS}: {self.threads}"
            )
        limit = self.max_drop_pp
        if limit is not None and not (isinstance(limit, int | float) and 0 <= limit <= 100):
            raise BadInputError(f"max_drop is in points, 0 to 100, got {limit!r}")
        if not 0.5 <= self.confidence < 1:
            raise BadInputError(f"confidence is a share, 0.5 to below 1, got {self.confidence}")
