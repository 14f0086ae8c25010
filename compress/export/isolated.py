"""Run a converter in a copy of this process: where it crashes or hangs, only its file is lost."""

import multiprocessing
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import TypeVar, cast

import torch

from edgedl.compress.errors import ExportError, root_cause
from edgedl.runtime.child_process import describe_exit
from edgedl.runtime.errors import EdgedlError

T = TypeVar("T")

# The slowest conversion seen took 3 minutes.
TIME_LIMIT_S = 1200.0


class ConverterCrashError(ExportError):
    """The converter's process was ended by a signal, or did not end in time."""


def isolated(work: Callable[[], T], limit_s: float = TIME_LIMIT_S) -> T:
    """Return what a function returns, computed in a copy of this process.

    The copy has all objects of this process as they are now; what the function changes is lost.
    Where processes cannot be copied safely (Windows, macOS), the function runs in this one.

    Args:
        work: what to do; its result must be picklable.
        limit_s: seconds after which the copy is killed.

    Raises:
        EdgedlError: what the function raised; a note has its traceback.
        Exception: what caused that which the function raised.
        ConverterCrashError: the copy was ended by a signal, or did not end in time.
    """
    if not hasattr(os, "fork") or sys.platform == "darwin":
        return work()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work_and_send, args=(work, sender), daemon=True)
    with warnings.catch_warnings():
        # JAX warns of every copy of a process. It works in copies alone, so it has no threads here.
        warnings.simplefilter("ignore", RuntimeWarning)
        process.start()
    sender.close()
    try:
        if not receiver.poll(limit_s):
            raise ConverterCrashError(f"the converter did not end within {limit_s:.0f} s")
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


def _work_and_send(work: Callable[[], object], sender: Connection) -> None:
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
