"""What a job says at its end: what to do next."""

from measured import candidate
from msgspec.structs import replace

from edgedl.runtime.bundle.certificates import Finding
from edgedl.tools.bench.recommend import recommend
from edgedl.tools.bench.result import Candidate, Result
from edgedl.tools.jobs.next_steps import next_steps

BASELINE = candidate("ort-float32", (1.0, 1.0), size=400)
FINDING = Finding("y", "scores", "3.0 dB of the float network", "cat", "--keep-float cat")


def result(*others: Candidate) -> Result:
    every = (BASELINE, *others)
    return Result("t", None, BASELINE.name, every, (), recommend(every, None), (), None)


def test_a_finding_comes_first_with_its_cure() -> None:
    bad = replace(candidate("ort-int8", (0.5, 0.6), (5.0, 7.0)), findings=(FINDING,))
    first, second, third = next_steps(result(bad), "mine.py:subject", ("cat (30.0 dB)",))
    assert "--keep-float cat" in first
    assert second.startswith("ort-int8 loses 6.00 points, most at cat (30.0 dB): use --keep-float")
    assert third == "'edgedl explain mine.py:subject' shows what each layer costs"


def test_what_has_no_name_on_the_command_line_is_not_named_there() -> None:
    bad = candidate("ort-int8", (0.5, 0.6), (5.0, 7.0))
    (only,) = next_steps(result(bad), "")
    assert only.startswith("ort-int8 loses 6.00 points: try --recipe")


def test_int8_that_is_nowhere_faster_is_to_be_explained() -> None:
    slow = candidate("ort-int8", (1.1, 1.2), same_runtime=(1.1, 1.2))
    (only,) = next_steps(result(slow), "lenet5")
    assert only.startswith("int8 is not faster here")
    assert "--time ort" in only


def test_where_all_is_well_the_device_is_next() -> None:
    (only,) = next_steps(result(candidate("ort-int8", (0.5, 0.6))), "lenet5")
    assert "on the device" in only
