"""A result as rows: one table for the terminal, the page, Markdown and CSV."""

import csv
import io
from collections.abc import Sequence

from edgedl.runtime.wording import counted, points
from edgedl.tools.bench.recommend import decided_by, speed_verdict
from edgedl.tools.bench.result import Attempt, Candidate, Drop, Result, Search

HEADERS = (
    "artifact",
    "size KB",
    "score %",
    "drop, points",
    "drop verdict",
    "median ms",
    "p90 ms",
    "latency ratio",
    "speed verdict",
)

SEARCH_HEADERS = ("recipe", "best file", "drop, points", "latency / float32", "outcome", "took")


def rows(result: Result, threads: int) -> list[tuple[str, ...]]:
    """Return one row of text per candidate for a thread count, in the order of HEADERS."""
    index = [latency.threads for latency in result.candidates[0].latency].index(threads)
    return [_row(c, index, c.name == result.baseline) for c in result.candidates]


def thread_counts(result: Result) -> list[int]:
    """Return the thread counts that were measured."""
    return [latency.threads for latency in result.candidates[0].latency]


def to_markdown(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return an aligned Markdown table.

    >>> print(to_markdown(["a", "bb"], [["1", "2"]]))
    | a | bb |
    |---|----|
    | 1 | 2  |
    """
    columns = list(zip(headers, *lines, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]

    def line(cells: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return "| " + " | ".join(padded) + " |"

    ruler = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(headers), ruler, *(line(cells) for cells in lines)])


def search_rows(search: Search) -> list[tuple[str, ...]]:
    """Return one row of text per recipe that was tried, in the order of SEARCH_HEADERS."""
    return [
        (
            attempt.recipe,
            attempt.artifact or "",
            drop_in_points(attempt.drop) if attempt.drop else "",
            with_interval(attempt.ratio, attempt.ratio_ci95, ".3f")
            if attempt.ratio is not None and attempt.ratio_ci95 is not None
            else "",
            attempt.outcome,
            f"{attempt.seconds:.0f} s" if attempt.seconds else "",
        )
        for attempt in search.attempts
    ]


def describe_search(search: Search) -> str:
    """Return what the search's table is of, in one sentence."""
    if search.met:
        end = f"{search.chosen} has the fastest file within the budget"
    elif not any(_is_faster(attempt) for attempt in search.attempts):
        end = "none is faster than float32"
    else:
        end = f"none is within the budget and faster; {search.chosen} is the closest"
    return (
        f"recipes tried, cheapest first, on {counted(search.samples, 'sample')} that are not "
        f"used for the scores above: {end}"
    )


def _is_faster(attempt: Attempt) -> bool:
    return attempt.ratio_ci95 is not None and speed_verdict(*attempt.ratio_ci95) == "faster"


def result_markdown(result: Result) -> str:
    """Return alerts, every table of a result, the recommendation, and what was not measured."""
    parts = [f"warning: {alert}\n" for alert in result.alerts]
    for threads in thread_counts(result):
        parts.append(f"{threads} thread(s), batch 1, against {result.baseline}:\n")
        parts.append(to_markdown(HEADERS, rows(result, threads)) + "\n")
    if result.search is not None:
        parts.append(f"{describe_search(result.search)}:\n")
        parts.append(to_markdown(SEARCH_HEADERS, search_rows(result.search)) + "\n")
    parts += [f"finding: {line}" for line in finding_lines(result)]
    parts.append(f"recommended: {result.recommendation.name}: {result.recommendation.reason}")
    parts += [f"note: {note}" for note in result.recommendation.notes]
    parts += [f"not measured: {item.what}: {item.why}" for item in result.not_measured]
    parts += [f"next: {step}" for step in result.next_steps]
    return "\n".join(parts)


def finding_lines(result: Result) -> list[str]:
    """Return a sentence for every part of an output that a file destroys."""
    return [f"{c.name}: {found.describe()}" for c in result.candidates for found in c.findings]


def to_csv(result: Result) -> str:
    """Return all rows as CSV, with the thread count as first column."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["threads", *HEADERS])
    for threads in thread_counts(result):
        writer.writerows([str(threads), *row] for row in rows(result, threads))
    return out.getvalue()


def _row(candidate: Candidate, index: int, is_baseline: bool) -> tuple[str, ...]:
    latency, speedup, drop = candidate.latency[index], candidate.speedup[index], candidate.drop
    p90 = f"{latency.p90_ms:.3f}" if latency.p90_ms else f"needs {latency.p90_needs} calls"
    return (
        candidate.name,
        f"{candidate.size_bytes / 1000:.1f}",
        f"{100 * candidate.score.value:.2f}",
        "baseline" if is_baseline else drop_in_points(drop),
        _verdict(candidate, is_baseline),
        with_interval(latency.median_ms, latency.ci95, ".3f"),
        p90,
        "1" if is_baseline else with_interval(speedup.ratio, speedup.ci95, ".3f"),
        "" if is_baseline else speedup.verdict,
    )


def _verdict(candidate: Candidate, is_baseline: bool) -> str:
    """Return the verdict on the drop; what is destroyed stands before it."""
    destroyed = f"{counted(len(candidate.findings), 'finding')}" if candidate.findings else ""
    said = "" if is_baseline else describe_verdict(candidate.drop)
    return ", ".join(filter(None, [destroyed, said]))


def describe_verdict(drop: Drop) -> str:
    """Return the verdict, and what would decide it where the samples cannot."""
    if drop.verdict != "inconclusive":
        return drop.verdict
    return f"{drop.verdict}, {decided_by(drop.more_samples)}"


def drop_in_points(drop: Drop) -> str:
    """Return a drop with its interval, if there is one."""
    if drop.ci95 is None:
        return points(drop.pp)
    return f"{points(drop.pp)} [{points(drop.ci95[0])}, {points(drop.ci95[1])}]"


def with_interval(value: float, ci95: tuple[float, float], form: str) -> str:
    """Return a number with its interval.

    >>> with_interval(1.5, (1.0, 2.0), ".1f")
    '1.5 [1.0, 2.0]'
    """
    return f"{value:{form}} [{ci95[0]:{form}}, {ci95[1]:{form}}]"
