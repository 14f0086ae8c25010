"""``edgedl cache``: results of stages that are kept for the next run."""

import time
from typing import TYPE_CHECKING

import click

from edgedl.runtime.errors import BadInputError
from edgedl.tools.terminal.named_commands import NamedCommands

if TYPE_CHECKING:
    from edgedl.compress.recipe.store.store import Kept, StageStore

DAY_S = 24 * 3600


@click.group(cls=NamedCommands, invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List, explain and prune the results of stages that 'edgedl compress' reuses."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_)


@command.command(name="list")
def list_() -> None:
    """List the cached results, the longest unused first."""
    store = _store()
    contents = store.contents()
    for kept in contents:
        click.echo(_row(store, kept))
    total = sum(kept.size_bytes for kept in contents)
    click.echo(f"{len(contents)} in {store.folder}, {_size(total)}")


@command.command()
@click.argument("key")
def explain(key: str) -> None:
    """Show what the result KEY depends on; the first characters are enough."""
    store = _store()
    found = [kept for kept in store.contents() if kept.key.startswith(key)]
    if len(found) != 1:
        raise BadInputError(
            f"{len(found) or 'no'} cached results begin with '{key}': 'edgedl cache list' shows all"
        )
    (kept,) = found
    click.echo(_row(store, kept))
    if kept.record is None:
        return
    made_of = kept.record.ingredients
    click.echo(f"stage: {made_of.stage}\nsettings: {made_of.settings}")
    click.echo(f"applied to: {made_of.before}")
    click.echo(f"network, teachers, augment and seed of the recipe: {made_of.beginning}")
    for split, digest in made_of.data.items():
        click.echo(f"data, split {split}: {digest}")
    click.echo(f"sources of edgedl: {made_of.code}")
    for package, version in made_of.toolchain.items():
        click.echo(f"{package}: {version}")
    if made_of.machine is not None:
        click.echo(f"machine: {made_of.machine}")


@command.command()
@click.option(
    "--days",
    type=click.IntRange(0),
    default=30,
    show_default=True,
    help="Unused for so many days.",
)
def prune(days: int) -> None:
    """Remove results that no run has used for --days days; 0 removes everything.

    Measured latencies of channels and layers are removed that many days after the measurement.
    """
    from edgedl.compress.latency.price_folder import price_folder

    store, before = _store(), time.time() - days * DAY_S
    old = [kept for kept in store.contents() if kept.used <= before]
    removed = [kept for kept in old if store.remove(kept)]
    busy = f"; {len(old) - len(removed)} in use" if len(removed) < len(old) else ""
    total = sum(kept.size_bytes for kept in removed)
    prices = price_folder(None).prune(before)
    also = f"; {prices} measured latencies" if prices else ""
    click.echo(f"{len(removed)} removed, {_size(total)}{busy}{also}")


def _store() -> "StageStore":
    from edgedl.compress.recipe.store.store import user_store

    return user_store()


def _row(store: "StageStore", kept: "Kept") -> str:
    """Return one line: key, stage, subject, cost, size, and when it was last used."""
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(kept.used))
    if kept.damaged:
        return f"{kept.key}  damaged, the next run replaces it, {_size(kept.size_bytes)}, {used}"
    if kept.record is None:
        run = "is still running" if store.in_use(kept.key) else "was interrupted"
        return f"{kept.key}  checkpoints of a run that {run}, {_size(kept.size_bytes)}, {used}"
    record = kept.record
    return (
        f"{kept.key}  {record.ingredients.stage} of {record.subject}, took {record.seconds:.0f} s, "
        f"{_size(kept.size_bytes)}, {used}"
    )


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
