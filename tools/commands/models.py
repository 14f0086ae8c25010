"""``edgedl models``: the reference models and what is known about their weights."""

from pathlib import Path

import click
import numpy as np

from edgedl.models.reference.pretrained import TrainingRecord, has_weights, load_record
from edgedl.models.reference.table import REFERENCE_MODELS, ReferenceModel, find_model
from edgedl.runtime.bundle.files import atomic_write
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.measure.score_intervals import mean_score
from edgedl.runtime.task.checks import TOP1
from edgedl.runtime.task.scores import AGREEMENT, score_text
from edgedl.tools.report.table import to_markdown
from edgedl.tools.terminal.named_commands import NamedCommands
from edgedl.tools.terminal.parameter_types import MODEL


@click.group(cls=NamedCommands, invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List the reference models; 'models show NAME' shows all details of one."""
    if ctx.invoked_subcommand is None:
        rows = [_row(model) for model in REFERENCE_MODELS.values()]
        click.echo(to_markdown(["model", "score", "parameters", "MACs", "minutes"], rows))


@command.command()
@click.argument("name", type=MODEL)
def show(name: str) -> None:
    """Show paper, data, licence, size, score with its 95 % interval, and the training command."""
    model = find_model(name)
    if not has_weights(model):
        click.echo(f"name: {model.name}\npaper: {model.paper}\ndata: {model.dataset}")
        click.echo(f"weights: none yet; train them with 'edgedl train {model.name}'")
        return
    record = load_record(model)
    count = record.test_samples
    minutes = record.training_minutes
    for label, value in (
        ("name", record.name),
        ("paper", model.paper),
        ("task", f"{model.dataset}, {record.metric}"),
        ("data", record.dataset),
        ("licence", model.licence),
        ("parameters", str(record.parameters)),
        ("MACs", str(record.macs)),
        (
            "score",
            f"{_score(record)}, {count} samples",
        ),
        ("command", record.command),
        ("epochs", str(record.epochs)),
        ("training", "not recorded" if minutes is None else f"{minutes:.1f} minutes on a CPU"),
        ("torch", record.torch),
        ("weights sha256", record.weights_sha256),
    ):
        click.echo(f"{label}: {value}")


@command.command()
@click.argument("results", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Markdown file.")
def table(results: Path, out: Path) -> None:
    """Write the support table from a folder that contains each model's result.json as NAME.json."""
    from edgedl.tools.bench.result import load_result
    from edgedl.tools.report.support import render

    files = [results / f"{name}.json" for name in REFERENCE_MODELS]
    found = {path.stem: load_result(path) for path in files if path.is_file()}
    if not found:
        raise BadInputError(f"{results} has no NAME.json of a reference model")
    with atomic_write(out) as file:
        file.write(render(found).encode())
    click.echo(f"{len(found)} models in {out}")


def _row(model: ReferenceModel) -> list[str]:
    if not has_weights(model):
        return [model.name, f"none yet: edgedl train {model.name}", "", "", ""]
    record = load_record(model)
    minutes = "" if record.training_minutes is None else f"{record.training_minutes:.0f}"
    score = f"{score_text(record.metric, record.test_score_percent / 100)} {record.metric}"
    return [model.name, score, str(record.parameters), str(record.macs), minutes]


def _score(record: TrainingRecord) -> str:
    """Return a score with its 95 % interval, where samples are right or wrong."""
    text = score_text(record.metric, record.test_score_percent / 100)
    if record.metric not in (TOP1, AGREEMENT):
        return text
    right = round(record.test_samples * record.test_score_percent / 100)
    score = mean_score(np.repeat([1.0, 0.0], [right, record.test_samples - right]))
    return f"{text} [{100 * score.lo:.2f}, {100 * score.hi:.2f}] (95 %)"
