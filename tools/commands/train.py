"""``edgedl train``: reproduce the weights of a reference model."""

import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from edgedl.models.catalog import (
    ReferenceModel,
    TrainingRecord,
    build,
    find_model,
    make_task,
)
from edgedl.models.data.datasets import find_dataset, load_split
from edgedl.runtime.files import atomic_write

if TYPE_CHECKING:
    from torch import nn


@click.command()
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder [runs/NAME].")
@click.option("--seed", default=0, show_default=True)
@click.option("--epochs", type=int, help="Instead of the plan's.")
@click.option("--threads", default=2, show_default=True)
def command(name: str, out: Path | None, seed: int, epochs: int | None, threads: int) -> None:
    """Train a reference model from scratch on the full training split.

    Writes NAME.safetensors and NAME.json to the run folder. A run that was cut off goes on from
    its last whole epoch when the same command is given again.
    """
    model = find_model(name)
    folder = out or Path("runs") / name
    folder.mkdir(parents=True, exist_ok=True)
    plan = model.plan if epochs is None else replace(model.plan, epochs=epochs)
    record = _train(replace(model, plan=plan), folder, seed, threads)
    click.echo(
        f"{name}: {record.test_top1_percent:.2f} % top-1 on {record.test_samples} test samples, "
        f"{record.parameters} parameters, {record.macs} MACs; weights in {folder}"
    )


def _train(model: ReferenceModel, folder: Path, seed: int, threads: int) -> TrainingRecord:
    import torch
    import torch.nn.functional as F

    from edgedl.compress.training import TrainingSettings, train
    from edgedl.models.augment import AugmentedBatches

    plan = model.plan
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    module = build(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = AugmentedBatches(
        load_split(model.dataset, "train"), plan.batch_size, plan.shift, plan.flip
    )
    settings = TrainingSettings(
        epochs=plan.epochs,
        batch_size=plan.batch_size,
        max_learning_rate=plan.max_learning_rate,
        weight_decay=plan.weight_decay,
        label_smoothing=plan.label_smoothing,
        seed=seed,
    )

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(outputs, labels, label_smoothing=plan.label_smoothing)

    with click.progressbar(
        length=plan.epochs * len(batches),
        label=f"train {model.name}",
        item_show_func=lambda text: text,
    ) as bar:

        def on_step(epoch: int, step: int, value: float) -> None:
            done = (epoch - 1) * len(batches) + step
            text = f"epoch {epoch}/{plan.epochs} loss {value:.3f}"
            bar.update(done - bar.pos, text)
            if step == len(batches) and not sys.stdout.isatty():
                click.echo(text, err=True)

        train(module, batches, loss, settings, folder / "checkpoint.pt", on_step)
    return _save(module, model, folder, seed)


def _save(module: "nn.Module", model: ReferenceModel, folder: Path, seed: int) -> TrainingRecord:
    import torch
    from safetensors.torch import save

    from edgedl.compress.evaluate import count_macs, count_parameters, score_module

    scores = score_module(module, make_task(model.dataset))
    weights = save({k: v.contiguous() for k, v in module.state_dict().items()})
    dataset = find_dataset(model.dataset)
    height, width, channels = dataset.image_shape
    record = TrainingRecord(
        name=model.name,
        dataset=f"{model.dataset} train, {dataset.sizes['train']} samples; {dataset.licence}",
        command=f"edgedl train {model.name} --seed {seed}",
        seed=seed,
        epochs=model.plan.epochs,
        test_top1_percent=round(100 * float(scores.mean()), 4),
        test_samples=len(scores),
        parameters=count_parameters(module),
        macs=count_macs(module, (torch.zeros(1, channels, height, width),)),
        torch=str(torch.__version__),
        weights_sha256=hashlib.sha256(weights).hexdigest(),
    )
    with atomic_write(folder / f"{model.name}.safetensors") as out:
        out.write(weights)
    with atomic_write(folder / f"{model.name}.json") as out:
        out.write(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
    return record
