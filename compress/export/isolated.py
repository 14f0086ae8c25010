"""Run a converter in a copy of this process: where it crashes or hangs, only its file is lost."""

import gc
import logging
import multiprocessing
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import TypeVar, cast

import psutil
import torch

from edgedl.compress.errors import ExportError, root_cause
from edgedl.runtime.child_process import describe_exit
from edgedl.runtime.errors import EdgedlError

T = TypeVar("T")
_log = logging.getLogger(__name__)

# The slowest conversion seen took 3 minutes.
TIME_LIMIT_S = 1200.0
IDLE_LIMIT_S = 30.0
# Less than this share of a processor is no work.
IDLE = 0.01
COPIES = 3


class ConverterCrashError(ExportError):
    """The converter's process was ended by a signal, or did not end in time."""


class _IdleError(ConverterCrashError):
    """The converter's process did nothing."""


def isolated(
    work: Callable[[], T], limit_s: float = TIME_LIMIT_S, idle_limit_s: float = IDLE_LIMIT_S
) -> T:
    """Return what a function returns, computed in a copy of this process.

    The copy has all objects of this process as they are now; what the function changes is lost.
    Where processes cannot be copied safely (Windows, macOS), the function runs in this one.

    A copy has one thread. It waits forever for a lock that another thread of this process held in
    the moment of the copy, and for anything that only such a thread does. So a copy that uses no
    processor time is killed, and another one made.

    Args:
        work: what to do; its result must be picklable.
        limit_s: seconds after which a copy is killed.
        idle_limit_s: seconds without processor time after which a copy is killed.

    Raises:
        EdgedlError: what the function raised; a note has its traceback.
        Exception: what caused that which the function raised.
        ConverterCrashError: the copy was ended by a signal, did not end in time, or did nothing
            each of three times.
    """
    if not hasattr(os, "fork") or sys.platform == "darwin":
        return work()
    for _ in range(COPIES - 1):
        try:
            return _in_a_copy(work, limit_s, idle_limit_s)
        except _IdleError as error:
            _log.debug("%s; it is started again", error)
    return _in_a_copy(work, limit_s, idle_limit_s)


def _in_a_copy(work: Callable[[], T], limit_s: float, idle_limit_s: float) -> T:
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work_and_send, args=(work, sender), daemon=True)
    with warnings.catch_warnings():
        # JAX warns of every copy of a process. It works in copies alone, so it has no threads here.
        warnings.simplefilter("ignore", RuntimeWarning)
        process.start()
    sender.close()
    try:
        _wait(receiver, psutil.Process(process.pid), limit_s, idle_limit_s)
        succeeded, value, trace = receiver.recv()
    except EOFError:
        process.join()
        raise ConverterCrashError(
            f"the converter's process ended with {describe_exit(process.exitcode or 0)}"
        ) from None
    finally:
        receiver.close()
        process.kill()
        process.join()
    if succeeded:
        return cast(T, value)
    value.__notes__ = [trace]
    raise value


def _wait(
    receiver: Connection, process: psutil.Process, limit_s: float, idle_limit_s: float
) -> None:
    """Wait until there is an answer, or the process has ended.

    Raises:
        ConverterCrashError: there was no answer in time, or the process did nothing.
    """
    end = time.monotonic() + limit_s
    used = -1.0
    while (left := end - time.monotonic()) > 0:
        if receiver.poll(min(left, idle_limit_s)):
            return
        before, used = used, _processor_s(process)
        if left > idle_limit_s and before >= 0 and used - before < IDLE * idle_limit_s:
            raise _IdleError(f"the converter did nothing for {idle_limit_s:g} s")
    raise ConverterCrashError(f"the converter did not end within {limit_s:g} s")


def _processor_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _work_and_send(work: Callable[[], object], sender: Connection) -> None:
    # What this process no longer needs is not collected in its copy: a compiled model of OpenVINO
    # would wait for the end of threads that were not copied, without end.
    gc.freeze()
    # The threads of this process's pools were not copied: with one thread torch needs none.
    torch.set_num_threads(1)
    answer: tuple[bool, object, str]
    try:
        answer = True, work(), ""
    except Exception as error:
        # edgedl's own errors say what others mean; of those the cause is what matters.
        own = isinstance(error, EdgedlError)
        answer = False, _portable(error if own else root_cause(error)), traceback.format_exc()
    sender.send(answer)


def _portable(error: BaseException) -> BaseException:
    """Return the error, or one that says the same where it cannot be sent to another process."""
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:
        # Errors of compiled modules often cannot be pickled, each in its own way.
        return ExportError(f"{type(error).__name__}: {error}")
    return error
