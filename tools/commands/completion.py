"""``edgedl completion``: the script that completes commands in a shell."""

import click
from click.shell_completion import get_completion_class

from edgedl.tools.cli import COMPLETION_VARIABLE, PROGRAM

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", metavar="|".join(SHELLS), type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the script that completes commands, options and names in a SHELL.

    bash: edgedl completion bash >~/.edgedl-completion, and in ~/.bashrc the line
    . ~/.edgedl-completion
    """
    script = get_completion_class(shell)
    if script is None:
        raise TypeError(f"click has no completion for {shell}")
    root = click.get_current_context().find_root().command
    click.echo(script(root, {}, PROGRAM, COMPLETION_VARIABLE).source())
