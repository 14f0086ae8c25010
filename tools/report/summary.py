"""A result as it fits on a terminal of 80 columns; the verdict stands at the end."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from edgedl.runtime.task.scores import score_text
from edgedl.tools.bench.bench import UNMEASURED
from edgedl.tools.bench.recommend import describe_size, describe_speed
from edgedl.tools.bench.result import Candidate, NotMeasured, Result
from edgedl.tools.report.table import (
    LADDER_HEADERS,
    describe_ladder,
    drop_in_points,
    finding_lines,
    ladder_rows,
    thread_counts,
)

WIDTH = 80
# Lines of the verdict that say what to do next.
MOST_STEPS = 3
HEADERS = ("file", "KB", "score", "drop, points", "time ratio")


def job_text(result: Result, folder: Path) -> str:
    """Return all that a job prints when it ends: tables, what to know, verdict, and the paths."""
    paths = f"bundle: {folder / 'bundle'}\nreport: {folder / 'report.html'}"
    return f"{result_text(result)}\n{paths}"


def result_text(result: Result) -> str:
    """Return alerts, the table, findings, notes, what was not measured, and last the verdict."""
    parts = [_wrapped(f"warning: {alert}\n") for alert in result.alerts]
    parts.append(_heading(result))
    parts.append(to_columns(HEADERS, compact_rows(result)) + "\n")
    if result.ladder is not None:
        parts.append(_wrapped(f"{describe_ladder(result.ladder)}:\n"))
        parts.append(to_columns(LADDER_HEADERS, ladder_rows(result.ladder)) + "\n")
    parts += [_wrapped(f"finding: {line}") for line in finding_lines(result)]
    parts += [_wrapped(f"note: {note}") for note in result.recommendation.notes]
    parts += [_wrapped(line) for line in not_measured_lines(result.not_measured)]
    parts.append("\n" + verdict(result))
    parts += _steps(result)
    return "\n".join(parts)


def verdict(result: Result) -> str:
    """Return which file to use and why, in at most 80 characters where names are short."""
    name = result.recommendation.name
    chosen, baseline = result.candidate(name), result.candidate(result.baseline)
    if chosen is baseline:
        return f"use {name}: no other file is faster and within the allowed drop"
    speed = describe_speed(chosen.speedup[0].ratio).removesuffix(" than")
    size = describe_size(chosen.size_bytes / baseline.size_bytes)
    return f"use {name}: {speed}, {size}, drop {drop_in_points(chosen.drop)} points"


def compact_rows(result: Result) -> list[tuple[str, ...]]:
    """Return a row of text per file for the first thread count, in the order of HEADERS."""
    return [_row(c, c.name == result.baseline) for c in result.candidates]


def not_measured_lines(items: Sequence[NotMeasured]) -> list[str]:
    """Return one line for each reason, with all that it holds for.

    What no job measures is one line without the reasons.
    """
    by_reason: dict[str, list[str]] = {}
    for item in items:
        by_reason.setdefault(item.why, []).append(item.what)
    for item in UNMEASURED:
        by_reason.pop(item.why, None)
    lines = [f"not measured: {', '.join(what)}: {why}" for why, what in by_reason.items()]
    never = [item.what for item in UNMEASURED if item in items]
    return [*lines, *([f"not part of any measurement: {', '.join(never)}"] if never else [])]


def to_columns(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return columns two spaces apart.

    >>> print(to_columns(["a", "bb"], [["1", "2"]]))
    a  bb
    1  2
    """
    every = [headers, *lines]
    widths = [max(len(row[i]) for row in every) for i in range(len(headers))]
    padded = ([cell.ljust(w) for cell, w in zip(row, widths, strict=True)] for row in every)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def _heading(result: Result) -> str:
    first, *others = thread_counts(result)
    more = f"; {', '.join(map(str, others))} in the report" if others else ""
    return (
        _wrapped(f"{first} thread(s), batch 1, times relative to {result.baseline}{more}:") + "\n"
    )


def _row(candidate: Candidate, is_baseline: bool) -> tuple[str, ...]:
    speed, score = candidate.speedup[0], candidate.score
    ratio = f"{speed.ratio:.2f} [{speed.ci95[0]:.2f}, {speed.ci95[1]:.2f}]"
    return (
        candidate.name,
        f"{candidate.size_bytes / 1000:.0f}",
        score_text(score.metric, score.value),
        "baseline" if is_baseline else drop_in_points(candidate.drop),
        "1" if is_baseline else ratio + (", has a finding" if candidate.findings else ""),
    )


def _steps(result: Result) -> list[str]:
    """Return what to do next: the first steps, as long as they fit into three lines."""
    lines: list[str] = []
    for step in result.next_steps:
        wrapped = _wrapped(f"next: {step}").splitlines()
        if lines and len(lines) + len(wrapped) > MOST_STEPS:
            break
        lines += wrapped
    return lines


def _wrapped(text: str) -> str:
    """Return a sentence in lines of at most 80 columns; names and commands stay whole."""
    end = "\n" * (len(text) - len(text.rstrip("\n")))
    lines = textwrap.wrap(
        text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines) + end
