"""``edgedl models``: the reference models and what is known about their weights."""

import click
import msgspec

from edgedl.models.pretrained import load_record
from edgedl.models.reference import REFERENCE_MODELS, find_model
from edgedl.runtime.statistics import Z95
from edgedl.tools.report.table import to_markdown


@click.group(invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List the reference models; 'models show NAME' tells all about one."""
    if ctx.invoked_subcommand is None:
        records = [load_record(model) for model in REFERENCE_MODELS.values()]
        lines = [
            [r.name, f"{r.test_top1_percent:.2f} %", str(r.parameters), str(r.macs)]
            for r in records
        ]
        click.echo(to_markdown(["model", "top-1", "parameters", "MACs"], lines))


@command.command()
@click.argument("name")
def show(name: str) -> None:
    """Show paper, data, licence, size, score with its 95 % interval, and the training command."""
    model = find_model(name)
    record = load_record(model)
    share, count = record.test_top1_percent / 100, record.test_samples
    half = 100 * Z95 * (share * (1 - share) / count) ** 0.5
    click.echo(f"paper: {model.paper}")
    for field, value in msgspec.structs.asdict(record).items():
        click.echo(f"{field}: {value}")
    click.echo(f"top-1 95 % interval: +- {half:.2f} points")
