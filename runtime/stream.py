"""Inputs that come one after another, taken by a thread while the network computes."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Generic, Literal, TypeVar, get_args

from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.wording import meant

Item = TypeVar("Item")
Answer = TypeVar("Answer")

# What is given up where more comes than is computed: the source waits, the item that has waited
# longest goes, or the one that has just come.
Drop = Literal["wait", "oldest", "latest"]
DROPS: tuple[str, ...] = get_args(Drop)
WAITING = 2


class SourceStalledError(BackendUnavailableError):
    """Nothing has come for too long (exit code 4)."""


@dataclass(frozen=True)
class Streamed(Generic[Item, Answer]):
    """An answer to an item of a stream.

    Attributes:
        index: of the item in its source, from 0.
        item: as it came.
        answer: to it.
        latency_ms: from when it was there to its answer.
        dropped: items given up so far.
    """

    index: int
    item: Item
    answer: Answer
    latency_ms: float
    dropped: int


class Stream(Generic[Item]):
    """A source that a thread reads; at most ``waiting`` items wait."""

    def __init__(
        self,
        source: Iterable[Item],
        drop: Drop = "wait",
        fps: float | None = None,
        stall_s: float | None = None,
        waiting: int = WAITING,
    ) -> None:
        """Take a source; it is read from the first time on that an answer is asked for.

        Args:
            source: of the items.
            drop: what is given up where more comes than is computed.
            fps: items a second, at which a file is read as a camera would give it; None for as fast
                as it can be.
            stall_s: how long may pass without an item; None for ever.
            waiting: items that wait.

        Raises:
            BadInputError: a setting is out of range.
        """
        if drop not in DROPS:
            raise BadInputError(f"nothing is dropped as '{drop}'{meant(drop, DROPS)}")
        for name, value in (("fps", fps), ("stall_s", stall_s), ("waiting", waiting)):
            if value is not None and not value > 0:
                raise BadInputError(f"{name} must be above 0, got {value}")
        self._source, self._drop, self._fps, self._stall_s = source, drop, fps, stall_s
        self._waiting = waiting
        self._items: deque[tuple[int, Item, float]] = deque()
        self._changed = Condition()
        self._dropped = 0
        self._ended, self._stopped = False, False
        self._error: BaseException | None = None

    def answers(self, compute: Callable[[Item], Answer]) -> Iterator[Streamed[Item, Answer]]:
        """Yield the answers in the order of the items, until the source ends.

        Raises:
            SourceStalledError: nothing has come for ``stall_s``.
            Exception: what the source or ``compute`` raises.
        """
        Thread(target=self._read, name="edgedl-stream", daemon=True).start()
        try:
            while (taken := self._take()) is not None:
                index, item, came = taken
                answer = compute(item)
                latency_ms = 1000 * (time.monotonic() - came)
                yield Streamed(index, item, answer, latency_ms, self._dropped)
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()

    def _take(self) -> tuple[int, Item, float] | None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._items or self._ended, self._stall_s):
                raise SourceStalledError(f"nothing has come for {self._stall_s:g} s")
            if self._items:
                taken = self._items.popleft()
                self._changed.notify_all()
                return taken
            if self._error is not None:
                raise self._error
            return None

    def _read(self) -> None:
        start = time.monotonic()
        try:
            for index, item in enumerate(self._source):
                if self._fps is not None:
                    time.sleep(max(0.0, start + index / self._fps - time.monotonic()))
                if not self._put(index, item):
                    return
        except BaseException as error:
            # It is raised where the answers are taken.
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, index: int, item: Item) -> bool:
        """Let an item wait; say whether anybody takes more."""
        with self._changed:
            if self._drop == "wait":
                self._changed.wait_for(lambda: self._stopped or len(self._items) < self._waiting)
            elif len(self._items) >= self._waiting:
                self._dropped += 1
                if self._drop == "latest":
                    return not self._stopped
                self._items.popleft()
            self._items.append((index, item, time.monotonic()))
            self._changed.notify_all()
            return not self._stopped
