"""What each step of a job takes."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from edgedl.runtime.progress import Event, Progress
from edgedl.tools.bench.result import StepTime
from edgedl.tools.terminal.progress import steps


class StepClock:
    """Times the steps of a job.

    Attributes:
        taken: steps that ended, in order.
    """

    def __init__(self) -> None:
        """Begin with no steps."""
        self.taken: list[StepTime] = []
        self._open: tuple[Event, float, float] | None = None

    @contextmanager
    def steps(self, label: str, count: int) -> Iterator[Progress]:
        """Yield the progress of ``count`` steps, shown on the terminal and timed."""
        with steps(label, count, self._hear) as progress:
            try:
                yield progress
            finally:
                self._end()

    def _hear(self, event: Event) -> None:
        if event.is_step:
            self._end()
            self._open = event, time.monotonic(), _cpu_seconds()

    def _end(self) -> None:
        if self._open is not None:
            event, start, cpu = self._open
            seconds, cpu_seconds = time.monotonic() - start, _cpu_seconds() - cpu
            self.taken.append(
                StepTime(event.text, event.kind, round(seconds, 3), round(cpu_seconds, 3))
            )
            self._open = None


def _cpu_seconds() -> float:
    """Return what this process and those it has waited for have used."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system
