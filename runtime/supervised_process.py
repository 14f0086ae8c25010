"""The child process of a supervised runner: it answers over a socket, whose number it is given."""

import os
import signal
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from edgedl.runtime.bundle.signature import Trust
from edgedl.runtime.errors import EdgedlError, tell
from edgedl.runtime.policy import Policy
from edgedl.runtime.runner import Runner

MIB = 1 << 20


@dataclass(frozen=True)
class Start:
    """What a process begins with: arguments of ``Runner.open``, and its most memory."""

    folder: Path
    artifact: str | None
    backend: str | None
    threads: int
    trust: Trust | None
    memory_mib: int | None
    policy: Policy | None


def main(number: int) -> None:
    """Load a model, then answer calls until the other end closes."""
    # Ctrl-C is the parent's to answer; what runtimes print must not mix with its output.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)
    connection = Connection(number)
    runner: Runner | None = None
    try:
        while True:
            message = connection.recv()
            try:
                if runner is None:
                    runner = _load(message)
                    answer: tuple[str, Any] = (
                        "done",
                        (runner.artifact.name, runner.instead, runner.differs),
                    )
                else:
                    answer = ("done", runner(*message))
            except EdgedlError as error:
                answer = ("raised", tell(error))
            connection.send(answer)
            if runner is None:
                return
    except (EOFError, OSError):
        # The parent has closed, or is gone.
        return


def _load(start: Start) -> Runner:
    if start.memory_mib is not None:
        import resource

        limit = start.memory_mib * MIB
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return Runner.open(
        start.folder, start.artifact, start.backend, start.threads, start.trust, start.policy
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
