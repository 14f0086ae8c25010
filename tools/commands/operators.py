"""``edgedl operators``: which operators each runtime computes in integers."""

import click
import msgspec


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(names: tuple[str, ...], as_json: bool) -> None:
    """Show which operators each runtime computes in int8, from edgedl's tables.

    Nothing is run. NAME is a part of an operator's name, such as conv; without one all are shown.
    """
    from edgedl.compress.targets.operator_support import decide_themselves, operator_support
    from edgedl.tools.report.table import to_markdown

    rows = operator_support(names)
    if as_json:
        click.echo(msgspec.json.encode(rows))
        return
    headers = ["operator", *rows[0].runtimes, "if not rewritten by"]
    lines = [[r.operator, *r.runtimes.values(), ", ".join(r.rewritten_by)] for r in rows]
    click.echo(to_markdown(headers, lines))
    for runtime in decide_themselves():
        click.echo(f"{runtime} decides which other operators it computes in integers")
