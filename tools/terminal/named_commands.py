"""A group of commands that suggests the nearest name for one that there is not."""

import click

from edgedl.runtime.wording import meant


class NamedCommands(click.Group):
    """A group that refuses an unknown command with the nearest name and all that there are."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments begin with.

        Raises:
            click.UsageError: there is none of that name.
        """
        name = args[0]
        if ctx.resilient_parsing or name.startswith("-") or self.get_command(ctx, name):
            return super().resolve_command(ctx, args)
        raise click.UsageError(
            f"No such command '{name}'{meant(name, self.list_commands(ctx))}", ctx
        )
