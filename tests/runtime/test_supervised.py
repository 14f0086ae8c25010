"""A process that crashes, hangs or takes too much memory costs its call, not the caller."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edgedl.compress.pipeline import CompressedModel
from edgedl.runtime.bundle.signature import Trust
from edgedl.runtime.errors import (
    BackendUnavailableError,
    BadInputError,
    FileFailedError,
    IntegrityError,
)
from edgedl.runtime.runner import Runner
from edgedl.runtime.supervised import SupervisedRunner

NAME = "ort-float32"
Opened = Callable[..., SupervisedRunner]


@pytest.fixture
def opened(compressed: CompressedModel) -> Iterator[Opened]:
    """Return what opens a supervised runner, which is closed in the end."""
    runners: list[SupervisedRunner] = []

    def start(**settings: object) -> SupervisedRunner:
        runners.append(SupervisedRunner(compressed.bundle.folder, NAME, **settings))
        return runners[-1]

    yield start
    for runner in runners:
        runner.close()


def hit(runner: SupervisedRunner, number: signal.Signals) -> None:
    os.kill(runner._process.pid, number)


def test_it_answers_and_refuses_as_a_runner_does(
    opened: Opened, compressed: CompressedModel, images: np.ndarray, refused
) -> None:
    runner = opened()
    with Runner.open(compressed.bundle.folder, NAME) as usual:
        np.testing.assert_array_equal(runner(images)[0], usual(images)[0])
    with refused(BadInputError, "must be [N, 3, 12, 12]"):
        runner(images[:, :1])
    health = runner.health()
    assert (health.alive, health.artifact, health.calls) == (True, NAME, 2)
    assert (health.failures, health.restarts, health.last_failure) == (0, 0, "")
    assert 0 <= health.idle_s < 60


def test_a_crash_costs_the_call_and_the_next_one_is_answered(
    opened: Opened, images: np.ndarray, refused
) -> None:
    runner = opened()
    (expected,) = runner(images)
    hit(runner, signal.SIGSEGV)
    runner._process.wait()
    with refused(FileFailedError, NAME, "SIGSEGV"):
        runner(images)
    np.testing.assert_array_equal(runner(images)[0], expected)
    health = runner.health()
    assert (health.alive, health.failures, health.restarts) == (True, 1, 1)
    assert "SIGSEGV" in health.last_failure


def test_a_crash_during_a_call_ends_it_at_once(opened: Opened, images: np.ndarray, refused) -> None:
    runner = opened(timeout_s=60)
    hit(runner, signal.SIGSTOP)
    Timer(0.3, hit, (runner, signal.SIGKILL)).start()
    start = time.monotonic()
    with refused(FileFailedError, "SIGKILL"):
        runner(images)
    assert time.monotonic() - start < 30


def test_a_call_that_hangs_is_given_up(opened: Opened, images: np.ndarray, refused) -> None:
    runner = opened(timeout_s=0.5)
    (expected,) = runner(images)
    hit(runner, signal.SIGSTOP)
    with refused(FileFailedError, "no answer within 0.5 s"):
        runner(images)
    np.testing.assert_array_equal(runner(images)[0], expected)
    assert runner.health().restarts == 1


def test_a_call_that_was_interrupted_leaves_no_answer_for_the_next_one(
    opened: Opened, images: np.ndarray
) -> None:
    runner = opened()
    (expected,) = runner(images[1:2])
    hit(runner, signal.SIGSTOP)

    def stop(*_: object) -> None:
        hit(runner, signal.SIGCONT)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            runner(images[:1])
    finally:
        signal.signal(signal.SIGALRM, before)
    np.testing.assert_array_equal(runner(images[1:2])[0], expected)
    assert runner.health().failures == 0


def test_what_fails_too_often_is_given_up(opened: Opened, images: np.ndarray, refused) -> None:
    runner = opened(max_restarts=1)
    for _ in range(2):
        hit(runner, signal.SIGKILL)
        runner._process.wait()
        with refused(FileFailedError, "SIGKILL"):
            runner(images)
    assert not runner.health().alive
    with refused(FileFailedError, "given up", "SIGKILL"):
        runner(images)
    assert runner.health().restarts == 1


def test_failures_of_long_ago_do_not_count(opened: Opened, images: np.ndarray) -> None:
    runner = opened(max_restarts=1, within_s=0.01)
    for _ in range(3):
        hit(runner, signal.SIGKILL)
        runner._process.wait()
        with pytest.raises(FileFailedError):
            runner(images)
    runner(images)
    assert runner.health().restarts == 3


def test_threads_get_the_answers_to_their_own_inputs(opened: Opened, images: np.ndarray) -> None:
    runner = opened()
    expected = [runner(images[i : i + 1])[0] for i in range(4)]

    def call(index: int) -> bool:
        i = index % 4
        return bool(np.array_equal(runner(images[i : i + 1])[0], expected[i]))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(200)))


def test_what_cannot_be_opened_is_said_as_without_a_process(
    compressed: CompressedModel, bundle_copy: Path, refused
) -> None:
    with refused(BadInputError, "'ort-int9'", "ort-int8"):
        SupervisedRunner(compressed.bundle.folder, "ort-int9")
    (bundle_copy / "float32.onnx").write_bytes(b"")
    with refused(IntegrityError, "float32.onnx"):
        SupervisedRunner(bundle_copy, NAME)
    key = Ed25519PrivateKey.generate().public_key()
    public = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    keys = bundle_copy.parent / "keys"
    keys.write_bytes(public + b" somebody")
    with refused(IntegrityError, "not signed"):
        SupervisedRunner(compressed.bundle.folder, NAME, trust=Trust.read(keys))


def test_too_little_memory_is_an_error_of_the_process_alone(compressed: CompressedModel) -> None:
    # The runtime's library cannot be loaded, or the process cannot even say so.
    with pytest.raises((BackendUnavailableError, FileFailedError)):
        SupervisedRunner(compressed.bundle.folder, NAME, memory_mib=64)


def test_a_closed_runner_has_no_process(opened: Opened, images: np.ndarray, refused) -> None:
    runner = opened()
    runner.close()
    runner.close()
    assert runner._process.poll() is not None
    assert not runner.health().alive
    with refused(BadInputError, "closed"):
        runner(images)


def test_the_process_ends_with_its_parent(compressed: CompressedModel) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from edgedl.runtime.supervised import SupervisedRunner\n"
        f"runner = SupervisedRunner(Path({str(compressed.bundle.folder)!r}), {NAME!r})\n"
        "print(runner._process.pid, flush=True); os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    place = Path("/proc") / done.stdout.strip()
    for _ in range(100):
        if not place.exists():
            return
        time.sleep(0.1)
    pytest.fail("the process is still there")
