"""Time files in a process of their own, one for each runtime: thread pools do not meet.

As a module it is that process. Each line it reads is a request, each line it writes an answer.
"""

import gc
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.golden import golden_inputs
from edgedl.runtime.child_process import describe_exit
from edgedl.runtime.closing import Closing
from edgedl.runtime.errors import EdgedlError, FileFailedError
from edgedl.runtime.loaded_model import LoadedModel
from edgedl.runtime.measure.amx import REFUSED, refuse_amx
from edgedl.runtime.measure.measure import Call
from edgedl.runtime.tensors import encode


class Worker(Closing):
    """A process that loads artifacts of one runtime and times their calls on request."""

    def __init__(self, runtime: str) -> None:
        """Start the process; ``runtime`` is what errors call it."""
        self._runtime = runtime
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgedl.runtime.measure.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def load(self, name: str, folder: Path, artifact: str, threads: int) -> "WorkerArm":
        """Load an artifact of a bundle under a name, ready for one golden sample.

        Raises:
            FileFailedError: the runtime refuses it, or is not here, or the process ended.
        """
        arm = WorkerArm(self, name, str(folder.resolve()), artifact, threads)
        arm.reload()
        return arm

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            # What a process that has ended did not read is lost with it.
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def ask(self, request: list[str | int]) -> list[int]:
        """Return the answer to a request.

        Raises:
            FileFailedError: the runtime refuses the file, or the process ended.
        """
        pipes = self._process.stdin, self._process.stdout
        if pipes[0] is None or pipes[1] is None:
            raise EdgedlError(f"the process of {self._runtime} has no pipes")
        try:
            pipes[0].write(json.dumps(request) + "\n")
            pipes[0].flush()
            line = pipes[1].readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            how = describe_exit(code)
            raise FileFailedError(
                str(request[1]), f"the process that times {self._runtime} ended with {how}"
            )
        answer = json.loads(line)
        if isinstance(answer, dict):
            raise FileFailedError(str(request[1]), answer["refused"])
        times: list[int] = answer
        return times


class WorkerArm:
    """One artifact in a worker.

    Attributes:
        load_ms: what the last load took.
    """

    def __init__(self, worker: Worker, name: str, folder: str, artifact: str, threads: int) -> None:
        """Take what the worker loads, and the name it has there."""
        self._worker, self._name = worker, name
        self._load: list[str | int] = ["load", name, folder, artifact, threads]
        self.load_ms = 0.0

    def reload(self) -> None:
        """Load the artifact anew; the load before goes once the new one is there.

        Raises:
            FileFailedError: the runtime refuses it, or is not here, or the process ended.
        """
        start = time.perf_counter()
        self._worker.ask(self._load)
        self.load_ms = 1e3 * (time.perf_counter() - start)

    def block(self, settle_calls: int, calls: int) -> npt.NDArray[np.int64]:
        """Return the wall time of each recorded call, in nanoseconds.

        Raises:
            FileFailedError: the process ended.
        """
        return np.array(self._worker.ask(["block", self._name, settle_calls, calls]), np.int64)


def golden_call(bundle: Bundle, artifact: str, threads: int) -> Call:
    """Return the call that runs one golden sample, already in the file's own types."""
    runner = LoadedModel(bundle, bundle.artifact(artifact), threads)
    samples = golden_inputs(bundle)
    inputs = [encode(x[:1], s) for x, s in zip(samples, runner.artifact.inputs, strict=True)]
    run = runner.session.run
    return Call(lambda: run(inputs))


def _serve() -> None:
    # Runtimes print to stdout: answers have a pipe of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    gc.disable()
    arms: dict[str, Call] = {}
    bundles: dict[str, Bundle] = {}
    for line in sys.stdin:
        kind, name, *rest = json.loads(line)
        answer: list[int] | dict[str, str] = []
        try:
            if kind == "load":
                folder, artifact, threads = rest
                if folder not in bundles:
                    bundles[folder] = Bundle.open(Path(folder))
                arms[name] = golden_call(bundles[folder], artifact, threads)
            else:
                answer = arms[name].block(*rest).tolist()
        except EdgedlError as error:
            answer = {"refused": str(error)}
        except Exception as error:
            # Runtimes raise anything; the parent tells whose file it was.
            answer = {"refused": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    if REFUSED in os.environ:
        refuse_amx()
    _serve()
