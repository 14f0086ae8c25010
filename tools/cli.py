"""The ``edgedl`` command. Commands are imported when they are called, so help needs no torch."""

import importlib
import sys
import traceback
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

import edgedl
from edgedl.compress.errors import user_line
from edgedl.runtime.errors import BackendUnavailableError, BadInputError, EdgedlError
from edgedl.tools.terminal.host_packages import how_to_install
from edgedl.tools.terminal.interrupt import remembered_interrupt
from edgedl.tools.terminal.named_commands import NamedCommands

PROGRAM = "edgedl"
COMPLETION_VARIABLE = "_EDGEDL_COMPLETE"


class Group(NamedTuple):
    """Commands that help shows together.

    Attributes:
        title: what they are for.
        example: a line that works; each goes on from the one of the group before.
    """

    title: str
    example: str


class Command(NamedTuple):
    """A command, described without importing it.

    Attributes:
        name: on the command line, and of its module in ``edgedl.tools.commands``.
        group: that help shows it in.
        help: one line.
    """

    name: str
    group: Group
    help: str


COMPRESS = Group("Compress", "edgedl compress lenet5-fashion_mnist --out out/demo")
RUN = Group("Run", "edgedl bench out/demo --out out/again")
LOOK = Group("Look", "edgedl report out/demo --out -")
DATA = Group("Data", "edgedl data fetch cifar10")
GROUPS = (COMPRESS, RUN, LOOK, DATA)

COMMANDS = (
    Command("compress", COMPRESS, "Compress a model, measure it, write bundle and report."),
    Command("explain", COMPRESS, "Show what int8 costs layer by layer: noise, points, ms."),
    Command("recipes", COMPRESS, "List the recipes: the stages that a network goes through."),
    Command("targets", COMPRESS, "List the targets: runtimes and processors to make files for."),
    Command("train", COMPRESS, "Train a reference model."),
    Command("convert", COMPRESS, "Convert a quantized ONNX file of another tool."),
    Command("cache", COMPRESS, "List, explain and prune the cached results of stages."),
    Command("run", RUN, "Run a bundle on pictures, sensor rows or arrays."),
    Command("compile", RUN, "Build TensorRT engines of a bundle, on the device or for it."),
    Command("bench", RUN, "Measure latency and accuracy of bundles or model files."),
    Command("verify", RUN, "Check a bundle's integrity and its golden outputs."),
    Command("sign", RUN, "Sign a bundle with your key."),
    Command("doctor", RUN, "Show what this machine can compress, run and measure."),
    Command("completion", RUN, "Print the completion script for your shell."),
    Command("report", LOOK, "Draw the accuracy-vs-latency report of measured results."),
    Command("inspect", LOOK, "Show the contents of a bundle or a model file."),
    Command("diff", LOOK, "Compare two model files layer by layer."),
    Command("operators", LOOK, "Show which operators run in which precision on which runtime."),
    Command("models", LOOK, "List the reference models, or show one."),
    Command("data", DATA, "List, fetch and import data sets."),
)
_BY_NAME = {command.name: command for command in COMMANDS}


class LazyGroup(NamedCommands):
    """The group of all commands, which are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the command names as help shows them."""
        return list(_BY_NAME)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in _BY_NAME:
            return None
        module = importlib.import_module(f"edgedl.tools.commands.{cmd_name}")
        command = module.command
        if not isinstance(command, click.Command):
            raise TypeError(f"edgedl.tools.commands.{cmd_name}.command is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the groups of commands without importing any of them."""
        for group in GROUPS:
            with formatter.section(group.title):
                shown = [(c.name, c.help) for c in COMMANDS if c.group is group]
                formatter.write_dl(shown)
                formatter.write_paragraph()
                formatter.write_text(f"$ {group.example}")

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the names of commands and options that begin so; no command is imported."""
        return [
            *(
                CompletionItem(c.name, help=c.help)
                for c in COMMANDS
                if c.name.startswith(incomplete)
            ),
            *click.Command.shell_complete(self, ctx, incomplete),
        ]


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option("--without-amx", is_flag=True, help="Disable Intel's AMX for the runtimes.")
@click.version_option(edgedl.__version__, prog_name=PROGRAM)
@click.pass_context
def cli(ctx: click.Context, debug: bool, without_amx: bool) -> None:
    """Compress trained networks, compile them for edge runtimes, measure what ships."""
    ctx.obj = debug
    if without_amx:
        from edgedl.runtime.measure.amx import refuse_amx

        click.echo(refuse_amx(), err=True)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code.

    Exit codes: 0 done; 1 a budget was missed; 2 wrong usage or bad input; 3 the measurement is
    not valid; 4 a runtime or driver is not there; 5 integrity failed; 70 a fault of edgedl's own;
    130 interrupted.
    """
    given = sys.argv[1:] if arguments is None else arguments
    try:
        with remembered_interrupt():
            result: Any = cli.main(
                given, PROGRAM, complete_var=COMPLETION_VARIABLE, standalone_mode=False
            )
        code = result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        code = 0 if not given else 2
    except click.ClickException as error:
        click.echo(f"edgedl: {_usage(error)}", err=True)
        code = 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("\nedgedl: interrupted, no partly written files were kept", err=True)
        code = 130
    except (Exception, SystemExit) as error:
        message, code = _explain(error, given)
        if "--debug" in given:
            traceback.print_exception(error)
        click.echo(f"edgedl: {message}", err=True)
    sys.exit(code)


def _usage(error: click.ClickException) -> str:
    """Return one line on wrong usage, and where the right one is told."""
    said = " ".join(error.format_message().split())
    context = error.ctx if isinstance(error, click.UsageError) else None
    return said if context is None else f"{said} ('{context.command_path} --help')"


def _explain(error: Exception | SystemExit, given: list[str]) -> tuple[str, int]:
    """Return one line on what went wrong, and the exit code: the user's fault, or edgedl's own."""
    users = user_line(error)
    if isinstance(error, EdgedlError):
        said = users is None or users.file.name in str(error)
        where = "" if users is None or said else f" ({users.place})"
        return f"{error}{where}", error.exit_code
    if users is not None:
        return str(users), BadInputError.exit_code
    if isinstance(error, SystemExit):
        raise error
    if isinstance(error, OSError):
        return _describe(error), BadInputError.exit_code
    hint = how_to_install(error.name) if isinstance(error, ModuleNotFoundError) else None
    if hint is not None:
        return hint, BackendUnavailableError.exit_code
    from edgedl.tools.terminal.fault_report import write_report

    # Not a user's mistake but ours: 1 would be mistaken for a missed budget.
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    return f"internal error: {text}; {write_report(error, given)}", 70


def _describe(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"
