"""The ``edgedl`` command. Commands are imported when they are called, so help needs no torch."""

import importlib
import sys
import traceback
from typing import Any

import click

import edgedl
from edgedl.compress.errors import user_line
from edgedl.runtime.errors import BackendUnavailableError, BadInputError, EdgedlError
from edgedl.tools.terminal.host_packages import how_to_install
from edgedl.tools.terminal.interrupt import remembered_interrupt

# name -> (module below edgedl.tools.commands, one line of help)
COMMANDS = {
    "compress": ("compress", "Compress a model, measure it, write bundle and report."),
    "run": ("run", "Run a bundle on pictures or arrays."),
    "bench": ("bench", "Measure latency and accuracy of bundles, interleaved and paired."),
    "report": ("report", "Draw the accuracy-vs-latency report of measured results."),
    "cache": ("cache", "List, explain and prune the kept results of stages."),
    "train": ("train", "Train a reference model."),
    "models": ("models", "List the reference models, or show one."),
    "data": ("data", "List, fetch and import data sets."),
    "inspect": ("inspect", "Look into a bundle or a model file."),
    "diff": ("diff", "Compare two model files layer by layer."),
    "convert": ("convert", "Carry a quantized ONNX file from elsewhere to other runtimes."),
    "operators": ("operators", "Show which operators run in which precision on which runtime."),
    "explain": ("explain", "Say what int8 costs layer by layer: noise, points, ms."),
    "verify": ("verify", "Check a bundle's integrity and its golden outputs."),
    "doctor": ("doctor", "Say what this machine can compress, run and measure."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the command names in the order of the workflow."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"edgedl.tools.commands.{COMMANDS[cmd_name][0]}")
        command = module.command
        if not isinstance(command, click.Command):
            raise TypeError(f"edgedl.tools.commands.{cmd_name}.command is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option("--without-amx", is_flag=True, help="Refuse Intel's AMX tiles to the runtimes.")
@click.version_option(edgedl.__version__, prog_name="edgedl")
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
            result: Any = cli.main(given, standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        code = 0 if not given else 2
    except click.ClickException as error:
        error.show()
        code = 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("\nedgedl: interrupted, nothing half-written was kept", err=True)
        code = 130
    except (Exception, SystemExit) as error:
        message, code = _explain(error, given)
        if "--debug" in given:
            traceback.print_exception(error)
        click.echo(f"edgedl: {message}", err=True)
    sys.exit(code)


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
