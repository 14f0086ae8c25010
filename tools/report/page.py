"""The report: one self-contained HTML page over any number of results."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import edgedl
from edgedl.runtime.errors import BackendUnavailableError
from edgedl.runtime.install import install_line
from edgedl.tools.bench.result import NoiseFloor, Result
from edgedl.tools.report.parity import LAYER_HEADERS, describe_integers, layer_rows
from edgedl.tools.report.table import (
    HEADERS,
    SEARCH_HEADERS,
    describe_search,
    finding_lines,
    rows,
    search_rows,
    thread_counts,
)


@dataclass(frozen=True)
class _Block:
    """What the page shows for one thread count."""

    threads: int
    chart: str
    rows: list[tuple[str, ...]]
    noise: NoiseFloor
    unsettled: list[str]


def render(title: str, results: Sequence[Result]) -> str:
    """Return the page. It loads nothing from anywhere.

    Raises:
        BackendUnavailableError: jinja2 or matplotlib is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined

        from edgedl.tools.report.chart import draw
    except ImportError as error:
        raise _missing(error) from error
    folder = files("edgedl.tools.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = environment.from_string((folder / "report.html.j2").read_text())
    return template.render(
        title=title,
        results=results,
        blocks=[
            [_block(result, t, draw(result, t)) for t in thread_counts(result)]
            for result in results
        ],
        headers=HEADERS,
        search_headers=SEARCH_HEADERS,
        search_rows=search_rows,
        describe_search=describe_search,
        finding_lines=finding_lines,
        layer_headers=LAYER_HEADERS,
        layer_rows=layer_rows,
        describe_integers=describe_integers,
        css=(folder / "report.css").read_text(),
        version=edgedl.__version__,
    )


def draw_chart(result: Result) -> str:
    """Return the chart of the first thread count, an SVG file's text.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
    """
    try:
        from edgedl.tools.report.chart import draw
    except ImportError as error:
        raise _missing(error) from error
    return draw(result, thread_counts(result)[0])


def _missing(error: ImportError) -> BackendUnavailableError:
    return BackendUnavailableError.of(
        error, f"{error.name} is missing, the report needs it: {install_line('report')}"
    )


def _block(result: Result, threads: int, chart: str) -> _Block:
    index = thread_counts(result).index(threads)
    return _Block(
        threads=threads,
        chart=chart,
        rows=rows(result, threads),
        noise=result.noise_floor[index],
        unsettled=[c.name for c in result.candidates if not c.latency[index].settled],
    )
