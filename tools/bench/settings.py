"""What to measure of some files."""

from dataclasses import dataclass, field

from edgedl.runtime.measure.measure import Protocol
from edgedl.runtime.measure.statistics import (
    CONFIDENCE,
)

COLD_STARTS = 3


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
