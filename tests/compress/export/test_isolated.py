"""A converter in a copy of the process: results, errors, crashes and hangs."""

import ctypes
import gc
import os
import threading
import time

import numpy as np
import pytest
import torch

from edgedl.compress.errors import ExportError
from edgedl.compress.export.isolated import ConverterCrashError, isolated
from edgedl.runtime.errors import BadInputError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be copied here")


def test_a_result_comes_back_and_what_was_changed_does_not():
    kept = []

    def work():
        kept.append(1)
        return torch.ones(300, 300).matmul(torch.ones(300, 300)).sum().item(), os.getpid()

    total, process = isolated(work)
    assert total == 300**3
    assert process != os.getpid()
    assert kept == []


def test_a_result_larger_than_a_pipe_comes_back():
    assert isolated(lambda: bytes(10_000_000)) == bytes(10_000_000)


def test_an_error_keeps_its_class_and_message():
    def work():
        raise BadInputError("no such layer")

    with pytest.raises(BadInputError, match="no such layer") as caught:
        isolated(work)
    assert "in work" in caught.value.__notes__[0]


def test_an_error_that_cannot_be_sent_is_told_in_words():
    class LocalError(Exception):
        pass

    def work():
        raise LocalError("inside")

    with pytest.raises(ExportError, match="LocalError: inside"):
        isolated(work)


def test_what_caused_an_error_is_told():
    def work():
        try:
            raise KeyError("cause")
        except KeyError as error:
            raise RuntimeError("wrapped") from error

    with pytest.raises(KeyError, match="cause"):
        isolated(work)


def test_our_own_error_is_told_and_not_its_cause():
    def work():
        try:
            raise KeyError("cause")
        except KeyError as error:
            raise BadInputError("what to do") from error

    with pytest.raises(BadInputError, match="what to do"):
        isolated(work)


def test_a_crash_costs_the_copy_alone():
    with pytest.raises(ConverterCrashError, match=r"signal 11 \(SIGSEGV\)"):
        isolated(lambda: ctypes.string_at(0))


def test_a_copy_without_end_is_stopped():
    began = time.monotonic()
    with pytest.raises(ConverterCrashError, match=r"did not end within 0\.2 s"):
        isolated(lambda: time.sleep(60), limit_s=0.2)
    assert time.monotonic() - began < 30


class Mourned:
    """A cycle of its own, which only the garbage collector ends; it then leaves a file."""

    def __init__(self, file):
        self.own, self.file = self, file

    def __del__(self):
        with self.file.open("a") as file:
            file.write(str(os.getpid()))


def test_garbage_of_this_process_is_not_collected_in_its_copy(tmp_path):
    gc.disable()
    try:
        Mourned(tmp_path / "collected")
        isolated(gc.collect)
        assert not (tmp_path / "collected").exists()
    finally:
        gc.enable()
    gc.collect()
    assert (tmp_path / "collected").read_text() == str(os.getpid())


def test_a_compiled_model_that_nobody_needs_does_not_stop_a_copy():
    """OpenVINO's waits for its threads when it is destroyed, and a copy has none of them."""
    ops = pytest.importorskip("openvino.opset13")
    import openvino

    x = ops.parameter([1, 4], np.float32)
    model = openvino.Model([ops.relu(x)], [x])
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 2})
    compiled([np.ones((1, 4), np.float32)])
    cycle = [compiled]
    cycle.append(cycle)
    gc.disable()
    try:
        del compiled, cycle
        assert isolated(gc.collect, limit_s=60, idle_limit_s=5) >= 0
    finally:
        gc.enable()


def test_a_copy_that_waits_for_a_lock_is_started_again(tmp_path):
    """The lock of a thread that was not copied: the first copy waits, the second finds it free."""
    lock, held = threading.Lock(), threading.Event()

    def hold():
        with lock:
            held.set()
            time.sleep(0.5)

    threading.Thread(target=hold).start()
    held.wait()

    def work():
        with (tmp_path / "begun").open("a") as file:
            file.write("copy\n")
        with lock:
            return "done"

    assert isolated(work, idle_limit_s=0.5) == "done"
    assert (tmp_path / "begun").read_text() == "copy\ncopy\n"


def test_a_copy_that_waits_every_time_is_given_up():
    began = time.monotonic()
    with pytest.raises(ConverterCrashError, match=r"did nothing for 0\.2 s"):
        isolated(lambda: time.sleep(60), idle_limit_s=0.2)
    assert time.monotonic() - began < 30


def test_a_copy_that_works_is_waited_for():
    def work():
        end = time.process_time() + 1.5
        while time.process_time() < end:
            pass
        return "done"

    assert isolated(work, idle_limit_s=0.3) == "done"
