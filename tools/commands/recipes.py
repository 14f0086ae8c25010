"""``edgedl recipes``: what can be done to a network."""

import click
import msgspec

from edgedl.compress.recipe.shipped_recipes import (
    DEFAULT,
    recipe_description,
    shipped_recipes,
    shipped_text,
)
from edgedl.tools.terminal.parameter_types import SHIPPED_RECIPE
from edgedl.tools.terminal.rows import rows

_DEFAULT_LINE = "The recipe that suits the network's layers; the run prints which and why."


@click.command()
@click.argument("name", required=False, type=SHIPPED_RECIPE)
@click.option("--json", "as_json", is_flag=True, help="Print names and descriptions as JSON.")
def command(name: str | None, as_json: bool) -> None:
    """List the recipes that 'compress --recipe' takes, or print the YAML of the one called NAME.

    A YAML file of your own is also a recipe; docs/recipes.md explains its keys.
    """
    if name is not None and name != DEFAULT and not as_json:
        click.echo(shipped_text(name).rstrip())
        return
    every = {DEFAULT: _DEFAULT_LINE, **{n: recipe_description(n) for n in shipped_recipes()}}
    found = every if name is None else {name: every[name]}
    if as_json:
        records = [{"name": n, "description": text} for n, text in found.items()]
        click.echo(msgspec.json.encode(records if name is None else records[0]))
    else:
        click.echo(rows([(n, text) for n, text in found.items()]))
