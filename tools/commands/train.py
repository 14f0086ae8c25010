"""``edgedl train``: reproduce the weights of a reference model."""

import sys
from pathlib import Path

import click

from edgedl.models.reference.table import find_model
from edgedl.runtime.progress import SILENT, Progress
from edgedl.runtime.task.scores import score_text
from edgedl.tools.terminal.options import device_option
from edgedl.tools.terminal.parameter_types import MODEL


@click.command()
@click.argument("name", type=MODEL)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Run folder [runs/NAME]."
)
@click.option("--seed", default=0, show_default=True)
@click.option("--epochs", type=click.IntRange(1), help="Instead of the plan's.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1, 64))
@device_option
def command(
    name: str, out: Path | None, seed: int, epochs: int | None, threads: int, device: str | None
) -> None:
    """Train a reference model from scratch on the full training split.

    Writes NAME.safetensors, NAME.json and learning_curve.png to the run folder. If a run
    is interrupted, the same command continues after its last complete epoch; with other settings
    it stops with an error.

    To train with several processes, each with its share of every batch, start them with torchrun:
    torchrun --nproc-per-node 2 -m edgedl train NAME --threads 1. --threads is for each.
    """
    model = find_model(name)
    from edgedl.compress.device import find_device
    from edgedl.compress.training import torchrun_processes
    from edgedl.tools.jobs.reference_training import (
        ReferenceTraining,
        plan_of,
        score_published,
        with_epochs,
        write_record,
    )

    chosen = find_device(device or "cpu")
    folder = out or Path("runs") / name
    folder.mkdir(parents=True, exist_ok=True)
    if model.published is not None:
        write_record(score_published(model, model.published), folder)
        click.echo(f"{name} has published weights, nothing to train; its score is in {folder}")
        return
    model = with_epochs(model, epochs)
    total = plan_of(model).epochs
    processes = torchrun_processes()
    training = ReferenceTraining(model, folder, seed, threads, processes, chosen)
    if not processes.writes:
        training.run(lambda epoch, step, steps, value: None, SILENT)
        return
    with click.progressbar(
        length=total * len(training.batches),
        label=f"train {name}",
        item_show_func=lambda text: text,
    ) as bar:

        def on_step(epoch: int, step: int, steps: int, value: float) -> None:
            text = f"epoch {epoch}/{total} loss {value:.3f}"
            bar.update((epoch - 1) * steps + step - bar.pos, text)
            if step == steps and not sys.stdout.isatty():
                click.echo(text, err=True)

        listener = Progress(lambda event: click.echo(event.text, err=True))
        record = training.run(on_step, listener)
    if record is not None:
        score = score_text(record.metric, record.test_score_percent / 100)
        click.echo(
            f"{name}: {score} {record.metric} on {record.test_samples} "
            f"test samples, {record.parameters} parameters, {record.macs} MACs; weights in {folder}"
        )
