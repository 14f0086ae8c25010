"""What is dropped: native prints by one, Python's warnings and logs by the other, and no more."""

import logging
import os
import warnings

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
