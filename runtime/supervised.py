"""A runner in a process of its own: a call that hangs or crashes the runtime costs that call only.

The process is started again, a bounded number of times; what it holds is loaded anew.
"""

import os
import signal
import socket
import subprocess
import time
import warnings
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import Any

from edgedl.runtime.backend import Array
from edgedl.runtime.bundle.signature import Trust
from edgedl.runtime.child_process import describe_exit, python_module
from edgedl.runtime.closing import Closing
from edgedl.runtime.errors import BadInputError, EdgedlError, FileFailedError, told
from edgedl.runtime.first_load import OtherOutputsWarning
from edgedl.runtime.policy import Policy
from edgedl.runtime.supervised_process import Start
from edgedl.runtime.tensors import Floats

TIMEOUT_S, START_S = 10.0, 180.0
MAX_RESTARTS, WITHIN_S = 3, 60.0


@dataclass(frozen=True)
class Health:
    """How a supervised runner is.

    Attributes:
        alive: whether its process runs; one that was given up is not started again.
        artifact: that it runs.
        instead: why that and not what was asked for; empty where it is that.
        differs: how its golden outputs here differ from those where it was made; empty if not.
        calls: that were answered, with outputs or an error.
        failures: calls that got no answer.
        restarts: of the process.
        idle_s: since the last answer; None before the first one.
        last_failure: how the last one without an answer ended; empty if there was none.
    """

    alive: bool
    artifact: str
    instead: str
    differs: str
    calls: int
    failures: int
    restarts: int
    idle_s: float | None
    last_failure: str


class SupervisedRunner(Closing):
    """Runs an artifact of a bundle in a child process.

    Threads may share it; calls come one after another. A call takes longer than one of a Runner:
    its arrays are sent.

    >>> with SupervisedRunner(Path("out/bundle"), timeout_s=1) as runner:  # doctest: +SKIP
    ...     (logits,) = runner(x)
    """

    def __init__(
        self,
        folder: Path,
        artifact: str | None = None,
        backend: str | None = None,
        threads: int = 1,
        trust: Trust | None = None,
        timeout_s: float = TIMEOUT_S,
        memory_mib: int | None = None,
        max_restarts: int = MAX_RESTARTS,
        within_s: float = WITHIN_S,
        start_timeout_s: float = START_S,
        policy: Policy | None = None,
    ) -> None:
        """Start the process and load the model there.

        Args:
            folder: of the bundle.
            artifact: by name; None for the best one.
            backend: by name; None for any.
            threads: of the runtime.
            trust: whose bundles are accepted.
            timeout_s: after which a call is given up.
            memory_mib: most address space of the process; None for no limit.
            max_restarts: of the process within ``within_s`` seconds; more, and it is given up.
            within_s: the time that restarts are counted in.
            start_timeout_s: after which loading is given up. A file that is new here is tried
                first, for at most a minute and 4 s for each MiB; TensorRT builds an engine for
                minutes where none is kept.
            policy: what happens where that cannot run here, as for ``Runner.open``.

        Raises:
            EdgedlError: as ``Runner.open``; or the process ends while it loads.
        """
        self._start_with = Start(
            folder.resolve(), artifact, backend, threads, trust, memory_mib, policy
        )
        self._timeout_s, self._start_timeout_s = timeout_s, start_timeout_s
        self._max_restarts, self._within_s = max_restarts, within_s
        self._lock = Lock()
        self._calls = self._failures = self._restarts = 0
        self._ended_at: deque[float] = deque()
        self._answered_at: float | None = None
        self._last_failure = ""
        self._given_up = self._closed = self._must_start = False
        self.artifact = self.instead = self.differs = ""
        self._start()
        if self.differs:
            # The one that its process gives does not leave it.
            warnings.warn(f"{self.artifact}: {self.differs}", OtherOutputsWarning, stacklevel=2)

    def __call__(self, *inputs: Array) -> tuple[Floats, ...]:
        """Run a batch: float32 inputs [N, ...] -> float32 outputs [N, ...].

        Raises:
            BadInputError: as a call of a Runner; or it is closed.
            FileFailedError: the runtime crashed or gave no answer in time, now or so often that it
                was given up.
        """
        with self._lock:
            if self._closed:
                raise BadInputError("this runner is closed")
            if self._given_up:
                raise FileFailedError(self.artifact, f"it was given up: {self._last_failure}")
            if self._must_start:
                self._start()
            try:
                answer = self._ask(inputs, self._timeout_s)
            except _LostError as lost:
                self._restart(str(lost))
                raise FileFailedError(self.artifact, str(lost)) from lost
            except BaseException:
                # Somebody stopped waiting: the answer that is still to come is nobody's.
                self._end()
                self._must_start = True
                raise
            self._calls += 1
            self._answered_at = time.monotonic()
        outputs: tuple[Floats, ...] = _outputs(answer)
        return outputs

    def health(self) -> Health:
        """Say how it is; this does not wait for a call that runs."""
        answered = self._answered_at
        return Health(
            not self._given_up and not self._closed and self._process.poll() is None,
            self.artifact,
            self.instead,
            self.differs,
            self._calls,
            self._failures,
            self._restarts,
            None if answered is None else time.monotonic() - answered,
            self._last_failure,
        )

    def close(self) -> None:
        """End the process, after the call that runs."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._end()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                python_module("edgedl.runtime.supervised_process", str(theirs.fileno())),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # A group of its own: it may have started the builder of an engine.
                start_new_session=True,
            )
        self._connection = Connection(ours.detach())
        try:
            answer = self._ask(self._start_with, self._start_timeout_s)
            self.artifact, self.instead, self.differs = _outputs(answer)
            self._must_start = False
        except BaseException as error:
            self._end()
            if isinstance(error, _LostError):
                raise FileFailedError(str(self._start_with.folder), str(error)) from error
            raise

    def _restart(self, why: str) -> None:
        """Start the process again, or give it up."""
        self._failures += 1
        self._last_failure = why
        now = time.monotonic()
        while self._ended_at and now - self._ended_at[0] > self._within_s:
            self._ended_at.popleft()
        self._ended_at.append(now)
        self._end()
        if len(self._ended_at) > self._max_restarts:
            self._given_up = True
            return
        try:
            self._start()
        except EdgedlError as error:
            self._given_up = True
            self._last_failure = f"{why}; started again: {error}"
            return
        self._restarts += 1

    def _ask(self, message: object, timeout_s: float) -> tuple[str, Any]:
        """Return the answer to a message.

        Raises:
            _LostError: there is none in time, or the process ended.
        """
        try:
            self._connection.send(message)
            if self._connection.poll(timeout_s):
                answer: tuple[str, Any] = self._connection.recv()
                return answer
        except (EOFError, OSError) as error:
            how = describe_exit(self._process.wait())
            raise _LostError(f"its process ended with {how}") from error
        raise _LostError(f"it gave no answer within {timeout_s:g} s")

    def _end(self) -> None:
        self._connection.close()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class _LostError(Exception):
    """A call that gets no answer."""


def _outputs(answer: tuple[str, Any]) -> Any:
    """Return what was computed, or raise what was raised."""
    kind, value = answer
    if kind == "done":
        return value
    raise told(value)
