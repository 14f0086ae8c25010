"""A result as it fits on a terminal of 80 columns; the verdict is at the end."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from edgedl.runtime.task.scores import score_text
from edgedl.runtime.wording import counted
from edgedl.tools.bench.bench import UNMEASURED
from edgedl.tools.bench.recommend import (
    allowed_drop,
    describe_size,
    describe_speed,
    fastest_undecided,
)
from edgedl.tools.bench.result import Attempt, Candidate, NotMeasured, Result, StepTime
from edgedl.tools.report.table import (
    describe_search,
    drop_in_points,
    finding_lines,
    thread_counts,
)

WIDTH = 80
# Lines of the verdict that say what to do next.
MOST_STEPS = 3
HEADERS = ("file", "KB", "score", "drop, points", "time ratio")


def job_text(result: Result, folder: Path, width: int | None = WIDTH) -> str:
    """Return all that a job prints when it ends: tables, what to know, verdict, and the paths.

    Args:
        result: of the job.
        folder: of its files.
        width: of the terminal; None leaves sentences in one line, for logs and pipes.
    """
    paths = f"bundle: {folder / 'bundle'}\nreport: {folder / 'report.html'}"
    return f"{result_text(result, width)}\n{paths}"


def result_text(result: Result, width: int | None = WIDTH) -> str:
    """Return alerts, the table, findings, notes, what was not measured, and last the verdict."""
    parts = [_wrapped(f"warning: {alert}\n", width) for alert in result.alerts]
    parts.append(_heading(result, width))
    parts.append(to_columns(HEADERS, compact_rows(result)) + "\n")
    if result.search is not None:
        parts.append(_wrapped(f"{describe_search(result.search)}:\n", width))
        parts += [*(_wrapped(_attempt(attempt), width) for attempt in result.search.attempts), ""]
    parts += [_wrapped(f"finding: {line}", width) for line in finding_lines(result)]
    parts += [_wrapped(f"note: {note}", width) for note in result.recommendation.notes]
    parts += [_wrapped(line, width) for line in not_measured_lines(result.not_measured)]
    parts += [_wrapped(line, width) for line in time_lines(result.steps)]
    parts.append("\n" + verdict(result))
    parts += _steps(result, width)
    return "\n".join(parts)


def verdict(result: Result) -> str:
    """Return which file to use and why, in at most 80 characters where names are short."""
    name = result.recommendation.name
    chosen, baseline = result.candidate(name), result.candidate(result.baseline)
    if chosen is baseline:
        undecided = fastest_undecided(result.candidates, result.max_drop_pp)
        if undecided is None:
            return f"use {name}: no faster file loses {_limit(result)} or less"
        speed = describe_speed(undecided.speedup[0].ratio).removesuffix(" than")
        return f"use {name}: {undecided.name} is {speed}, but too few samples show its drop"
    speed = describe_speed(chosen.speedup[0].ratio).removesuffix(" than")
    size = describe_size(chosen.size_bytes / baseline.size_bytes)
    return f"use {name}: {speed}, {size}, drop {drop_in_points(chosen.drop)} points"


def _limit(result: Result) -> str:
    return counted(allowed_drop(result.max_drop_pp), "point")


def compact_rows(result: Result) -> list[tuple[str, ...]]:
    """Return a row of text per file for the first thread count, in the order of HEADERS."""
    return [_row(c, c.name == result.baseline) for c in result.candidates]


def _attempt(attempt: Attempt) -> str:
    """Return one line on a recipe that was tried."""
    if attempt.artifact is None or attempt.drop is None or attempt.ratio is None:
        return f"- {attempt.recipe}: {attempt.outcome}"
    return (
        f"- {attempt.recipe}: {attempt.artifact} takes {attempt.ratio:.2f} of the time of float32, "
        f"drop {drop_in_points(attempt.drop)}: {attempt.outcome} ({attempt.seconds:.0f} s)"
    )


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


def time_lines(steps: Sequence[StepTime]) -> list[str]:
    """Return one line on what the steps of a job took, by kind; none where nothing was timed.

    Kinds of less than half a second are left out.

    >>> time_lines([StepTime("export a", "export", 2.0, 3.9), StepTime("export b", "export", 1, 1)])
    ['time: 3 s (5 s of processor time): export 3 s']
    """
    if not steps:
        return []
    by_kind: dict[str, float] = {}
    for step in steps:
        by_kind[step.kind] = by_kind.get(step.kind, 0.0) + step.seconds
    kinds = ", ".join(f"{kind} {s:.0f} s" for kind, s in by_kind.items() if s >= 0.5)
    total, cpu = (sum(s) for s in zip(*((s.seconds, s.cpu_seconds) for s in steps), strict=True))
    return [f"time: {total:.0f} s ({cpu:.0f} s of processor time): {kinds}"]


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


def _heading(result: Result, width: int | None) -> str:
    first, *others = thread_counts(result)
    more = f"; {', '.join(map(str, others))} in the report" if others else ""
    metric = result.candidates[0].score.metric
    return (
        _wrapped(
            f"{first} thread(s), batch 1, score {metric}, times relative to "
            f"{result.baseline}{more}:",
            width,
        )
        + "\n"
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


def _steps(result: Result, width: int | None) -> list[str]:
    """Return what to do next: the first steps, as long as they fit into three lines."""
    lines: list[str] = []
    for step in result.next_steps:
        wrapped = _wrapped(f"next: {step}", width).splitlines()
        if lines and len(lines) + len(wrapped) > MOST_STEPS:
            break
        lines += wrapped
    return lines


def _wrapped(text: str, width: int | None) -> str:
    """Return a sentence in lines of at most so many columns; names and commands stay whole."""
    if width is None:
        return text
    end = "\n" * (len(text) - len(text.rstrip("\n")))
    lines = textwrap.wrap(
        text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines) + end
