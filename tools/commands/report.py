"""``edgedl report``: the accuracy-vs-latency page over any results."""

from pathlib import Path

import click

from edgedl.runtime.bundle.files import atomic_write
from edgedl.runtime.errors import BadInputError
from edgedl.tools.bench.result import load_result
from edgedl.tools.report.page import draw_chart, render
from edgedl.tools.report.summary import result_text
from edgedl.tools.report.table import result_markdown, to_csv
from edgedl.tools.terminal.width import terminal_width


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help=".html, .md, .csv, .svg, or -"
)
@click.option("--title", help="Of the page [the results' titles].")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def command(results: tuple[Path, ...], out: Path, title: str | None, force: bool) -> None:
    """Write the report of RESULTS: folders with a result.json, or result.json files.

    ``--out -`` prints the same text as ``compress``; .svg contains only the first chart.
    """
    read = [load_result(path) for path in results]
    if str(out) == "-":
        click.echo("\n\n".join(result_text(r, terminal_width()) for r in read))
        return
    if out.exists() and not force:
        raise BadInputError(f"{out} exists: choose another --out, or --force")
    heading = title or ", ".join(dict.fromkeys(r.title for r in read))
    if out.suffix == ".html":
        text = render(heading, read)
    elif out.suffix == ".svg":
        text = draw_chart(read[0])
    elif out.suffix == ".md":
        text = "\n\n".join(f"# {r.title}\n\n{result_markdown(r)}" for r in read) + "\n"
    elif out.suffix == ".csv":
        text = "".join(to_csv(r) for r in read)
    else:
        raise BadInputError(f"--out must end in .html, .md, .csv or .svg, got '{out.name}'")
    with atomic_write(out) as file:
        file.write(text.encode())
    click.echo(f"report: {out}")
