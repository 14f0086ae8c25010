"""``edgedl operators``: which operators run in which precision on which runtime."""

from contextlib import nullcontext
from pathlib import Path

import click
import msgspec

from edgedl.runtime.bundle.files import atomic_write
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.measure.device import run_context
from edgedl.tools.terminal.progress import steps
from edgedl.tools.terminal.workspace import new_folder


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write a page here.")
@click.option(
    "--bundles",
    type=click.Path(path_type=Path),
    help="Keep the bundles in this new folder: `edgedl verify FOLDER/*/* --parity` on a device.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def command(names: tuple[str, ...], out: Path | None, bundles: Path | None, as_json: bool) -> None:
    """Compress one small network per operator and show what every runtime makes of it.

    NAME is a part of an operator's name, such as conv; without one all are tried, which takes
    half an hour or more on one core.
    """
    from edgedl.compress.export.tensorrt.check import checker
    from edgedl.tools.operators.cases import operator_cases
    from edgedl.tools.operators.matrix import support_matrix
    from edgedl.tools.operators.page import render_page

    every = operator_cases()
    cases = [c for c in every if not names or any(n.lower() in c.name.lower() for n in names)]
    if not cases:
        known = ", ".join(c.name for c in every)
        raise BadInputError(f"no operator has '{names[0]}' in its name; there are: {known}")
    kept = nullcontext(None) if bundles is None else new_folder(bundles)
    with kept as folder, steps("operators", len(cases)) as progress:
        rows = support_matrix(cases, progress, folder)
    page = render_page(rows, run_context(), checker())
    if out is not None:
        with atomic_write(out) as file:
            file.write(page.encode())
    if as_json:
        click.echo(msgspec.json.encode(rows))
    elif out is None:
        click.echo(page)
