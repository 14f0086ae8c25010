"""What is dropped: native prints by one, Python's warnings and logs by the other, and no more."""

import logging
import os
import threading
import time
import warnings

import pytest

from edgedl.runtime.backends.quiet import quiet, without_warnings


def test_native_prints_are_dropped_and_come_back(capfd):
    with quiet():
        os.write(1, b"native\n")
        os.write(2, b"native\n")
    os.write(1, b"after\n")
    assert capfd.readouterr() == ("after\n", "")


def test_warnings_and_logs_are_dropped_prints_and_errors_are_not(capfd, caplog):
    logger = logging.getLogger("somebody")
    with without_warnings(), warnings.catch_warnings(record=True) as caught:
        warnings.warn("a mode nobody uses", stacklevel=1)
        logger.warning("a note")
        logger.error("a failure")
        print("the user's own line")
    logger.warning("after")
    assert [record.message for record in caplog.records] == ["a failure", "after"]
    assert capfd.readouterr().out == "the user's own line\n"
    assert not [w for w in caught if "nobody uses" in str(w.message)]


@pytest.mark.parametrize("drop", [quiet, without_warnings])
def test_threads_that_overlap_leave_everything_as_it_was(capfd, drop):
    first_is_in = threading.Event()

    def enter_first():
        with drop():
            first_is_in.set()
            # Long enough for the second to come in, if it may.
            time.sleep(0.1)

    def enter_second():
        first_is_in.wait()
        with drop():
            time.sleep(0.2)

    threads = [threading.Thread(target=enter) for enter in (enter_first, enter_second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(1, b"after\n")
    assert capfd.readouterr().out == "after\n"
    assert logging.root.manager.disable == logging.NOTSET


def test_one_may_stand_inside_the_other(capfd):
    with quiet(), without_warnings(), quiet():
        os.write(1, b"native\n")
    os.write(1, b"after\n")
    assert capfd.readouterr().out == "after\n"
