"""What a job prints: narrow, the verdict last, equal reasons once."""

from pathlib import Path

from measured import candidate, make_result
from msgspec.structs import replace

from edgedl.runtime.bundle.certificates import Finding
from edgedl.tools.bench.bench import UNMEASURED
from edgedl.tools.bench.recommend import recommend
from edgedl.tools.bench.result import NotMeasured, Result, Score
from edgedl.tools.report.summary import (
    WIDTH,
    compact_rows,
    job_text,
    not_measured_lines,
    result_text,
    verdict,
)

LONG = "a reason that goes on and on, " * 8


def with_steps(*steps: str) -> Result:
    return replace(make_result(), next_steps=steps)


def test_no_line_is_wider_than_a_terminal() -> None:
    result = replace(
        with_steps(LONG),
        alerts=(LONG,),
        not_measured=(NotMeasured("tensorrt-int8", LONG), *UNMEASURED),
    )
    assert max(len(line) for line in job_text(result, Path("out")).splitlines()) <= WIDTH


def test_in_a_pipe_every_sentence_is_one_line() -> None:
    result = replace(with_steps(LONG), not_measured=(NotMeasured("tensorrt-int8", LONG),))
    lines = job_text(result, Path("out"), None).splitlines()
    assert f"not measured: tensorrt-int8: {LONG}" in lines
    assert f"next: {LONG}" in lines


def test_the_verdict_is_the_last_block() -> None:
    text = job_text(with_steps("first", "second"), Path("out/demo"))
    assert text.split("\n\n")[-1].splitlines() == [
        "use ort-int8: 1.67x faster, 4.0x smaller, drop +0.10 [-0.10, +0.30] points",
        "next: first",
        "next: second",
        "bundle: out/demo/bundle",
        "report: out/demo/report.html",
    ]


def test_it_says_what_to_do_next_in_at_most_three_lines() -> None:
    block = job_text(with_steps("a", "b", "c", "d"), Path("out")).split("\n\n")[-1]
    assert block.count("next: ") == 3
    # The first is said whatever its length.
    block = job_text(with_steps(LONG, "b"), Path("out")).split("\n\n")[-1]
    assert block.count("next: ") == 1


def test_equal_reasons_are_one_line() -> None:
    items = [NotMeasured(name, "no runner") for name in ("a", "b", "c")]
    items.insert(1, NotMeasured("d", "another reason"))
    assert not_measured_lines([*items, *UNMEASURED]) == [
        "not measured: a, b, c: no runner",
        "not measured: d: another reason",
        "not part of any measurement: energy, paced and sustained load, other devices",
    ]
    assert not_measured_lines([]) == []


def test_where_nothing_is_faster_the_baseline_is_to_be_used() -> None:
    candidates = (candidate("ort-float32", (1, 1)), candidate("ort-int8", (1.1, 1.2)))
    result = replace(
        make_result(), candidates=candidates, recommendation=recommend(candidates, None)
    )
    assert verdict(result).endswith("no faster file loses 1 point or less")


def test_a_file_with_a_finding_says_so_in_the_table() -> None:
    result = make_result()
    found = Finding("y", "scores", "3.0 dB", "cat", "--keep-float cat")
    candidates = [
        replace(c, findings=(found,)) if c.name == "ort-int8" else c for c in result.candidates
    ]
    rows = {row[0]: row for row in compact_rows(replace(result, candidates=tuple(candidates)))}
    assert rows["ort-int8"][-1].endswith(", has a finding")
    assert "finding: ort-int8: output 'y', scores" in result_text(
        replace(result, candidates=tuple(candidates))
    )


def test_fidelity_is_shown_in_decibels() -> None:
    result = make_result()
    score = Score("sqnr", 0.999, 100, (0.998, 1.0))
    candidates = tuple(replace(c, score=score) for c in result.candidates)
    assert compact_rows(replace(result, candidates=candidates))[1][2] == "30.0 dB"
