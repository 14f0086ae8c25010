"""What long work is at: the work says it, and whoever listens shows it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """Something that long work says.

    Attributes:
        text: what it is at.
        is_step: whether a new step begins; otherwise it is how the step gets on.
        done: steps that ended.
        total: all steps, None where nobody knows.
        kind: of a step, without what it is done to.
    """

    text: str
    is_step: bool
    done: int
    total: int | None
    kind: str = ""


class Progress:
    """What is going on, for one listener.

    >>> heard = []
    >>> progress = Progress(lambda event: heard.append((event.done, event.text)), total=2)
    >>> progress.step("trace")
    >>> progress.of("fine_tune").note("epoch 1")
    >>> progress.step("export", "ort-int8")
    >>> heard
    [(0, 'trace'), (0, 'fine_tune, epoch 1'), (1, 'export ort-int8')]
    """

    def __init__(
        self, listener: Callable[[Event], None] = lambda event: None, total: int | None = None
    ) -> None:
        """Take who listens, and the number of steps where it is known."""
        self._listener, self._total, self._begun = listener, total, 0

    def step(self, kind: str, of: str = "") -> None:
        """Say that a step of a kind begins, and of what; the one before has ended."""
        self._begun += 1
        self._say(f"{kind} {of}".rstrip(), True, kind)

    def note(self, text: str) -> None:
        """Say how the step gets on."""
        self._say(text, False)

    def of(self, part: str) -> "Progress":
        """Return the progress of a part of the work: all that it says are notes, with its name."""
        return Progress(lambda event: self.note(f"{part}, {event.text}"))

    def _say(self, text: str, is_step: bool, kind: str = "") -> None:
        self._listener(Event(text, is_step, max(0, self._begun - 1), self._total, kind))


# For work that nobody listens to.
SILENT = Progress()
