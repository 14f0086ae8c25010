"""What each step of a job takes: wall and processor time, of other processes, too."""

import subprocess
import sys
import time

import pytest

from edgedl.tools.jobs.step_clock import StepClock

BUSY = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"


def test_each_step_has_its_time_and_that_of_its_processes() -> None:
    clock = StepClock()
    with clock.steps("work", 2) as progress:
        progress.step("wait", "a while")
        progress.note("half of it")
        time.sleep(0.2)
        progress.step("compute")
        subprocess.run([sys.executable, "-c", BUSY], check=True)
    waited, computed = clock.taken
    assert (waited.step, waited.kind) == ("wait a while", "wait")
    assert (computed.step, computed.kind) == ("compute", "compute")
    assert waited.seconds >= 0.2
    assert waited.cpu_seconds < 0.15
    assert computed.cpu_seconds >= 0.29


def test_a_step_that_fails_is_timed_and_time_between_works_is_not() -> None:
    clock = StepClock()

    def fail() -> None:
        with clock.steps("first", 1) as progress:
            progress.step("break")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    time.sleep(0.8)
    with clock.steps("second", 1) as progress:
        progress.step("go on")
    assert [step.kind for step in clock.taken] == ["break", "go on"]
    assert sum(step.seconds for step in clock.taken) < 0.8
