"""``edgedl.compress_model``: the main job for a module and data in memory."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgedl.compress.adapters.onnx.import_onnx import import_onnx
from edgedl.compress.recipe.recipe import DEFAULT, Recipe
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.recipe.store.store import user_store
from edgedl.compress.subject.given_task import GivenTask
from edgedl.compress.subject.scoring import UserScore
from edgedl.compress.subject.subject import Augment, Loss, Subject
from edgedl.compress.subject.unwrap import unwrap
from edgedl.compress.targets.target import Target, load_target
from edgedl.runtime.backends.runtimes import RUNTIMES
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.measure.measure import Protocol
from edgedl.runtime.task.task import TRAIN, ArrayTask, Samples
from edgedl.tools.bench.settings import BenchSettings, thread_counts
from edgedl.tools.jobs.compressed import Compressed
from edgedl.tools.jobs.job import Job
from edgedl.tools.jobs.named_data import check_file, subject_of
from edgedl.tools.jobs.subjects import find_subject
from edgedl.tools.jobs.whole_job import do_job
from edgedl.tools.terminal.names import names_onnx
from edgedl.tools.terminal.parameter_types import SEARCH_MINUTES


def compress_model(
    model: nn.Module | Subject | str,
    calibration: object = None,
    test: object = None,
    train: object = None,
    score: UserScore | None = None,
    loss: Loss | None = None,
    targets: str | Target | Sequence[str | Target] = RUNTIMES,
    recipe: str | Recipe = DEFAULT,
    max_drop: float | None = None,
    out: str | Path | None = None,
    *,
    data: str | None = None,
    name: str = "",
    classes: Sequence[str] = (),
    free_axes: tuple[int, ...] = (0,),
    augment: Augment | None = None,
    keep_float: Sequence[str] = (),
    threads: int | Sequence[int] = (1,),
    seed: int = 0,
    fresh: bool = False,
    search_minutes: float = SEARCH_MINUTES,
) -> Compressed:
    """Compress a network, measure every file on its runtime, and return what was made.

    Data are arrays or tensors [N, ...], a tuple ``(x, labels)`` of them, a DataLoader, a list of
    batches, or a generator. A batch is ``x``, ``(x, labels)``, ``(x1, x2, labels)``,
    ``((x1, x2), labels)``, or a mapping of the names of forward's arguments and "labels".

    Args:
        model: a trained module on the CPU; or a float ONNX file, "model.onnx"; or a ``Subject``,
            which has its own data; or the name of a reference model.
        calibration: a few hundred samples of the data that the network was trained on. Labels are
            not needed.
        test: samples that the score is of. Without it every second calibration sample is scored.
        train: samples for recipes that train, with labels unless the original network teaches.
        score: maps the output (a tuple of several) and labels to one number a sample, larger is
            better, best on a scale of 0 to 1; or "agreement" or "sqnr", with the float network.
            Without it the labels and outputs decide (``find_scoring``).
        loss: what training makes small: maps outputs and labels to one number.
        targets: runtimes, or targets of one's own.
        recipe: name, file, or ``Recipe``; "default" takes what suits the network.
        max_drop: largest drop of the score in points; with the default recipe the recipe with the
            fastest file that fits is looked for.
        out: new folder for the files; None makes one among the system's temporary files.
        data: by name, in the place of calibration, test and train: "imagefolder:DIR?size=N",
            "images:DIR?size=N", "csv:FILE?target=COLUMN" or "npz:FILE".
        name: of the network in bundle and report; the module's class if nothing is said.
        classes: their names, if labels are classes.
        free_axes: of every input: 0 is the batch, 1 the time of sequences of any length.
        augment: see ``Subject``.
        keep_float: layers that stay float32.
        threads: to measure with; the first decides.
        seed: of all that is random.
        fresh: whether earlier results of stages are not reused.
        search_minutes: that recipes are tried for ``max_drop``; the default recipe always is.

    Raises:
        BadInputError: model, data and settings do not fit together; said before any work.
        BackendUnavailableError: a library is missing.
    """
    settings = BenchSettings(thread_counts(threads), Protocol(seed=seed), max_drop)
    aims = _targets(targets)
    given = {"calibration": calibration, "test": test, "train": train}
    file = Path(model) if isinstance(model, str) and names_onnx(model) else None
    if file is not None:
        model, name = import_onnx(file), name or file.stem
    if isinstance(model, nn.Module) and data is not None:
        named = [split for split, value in given.items() if value is not None]
        if named or score is not None or classes:
            raise BadInputError(f"data={data!r} names splits, score and classes: leave out others")
        subject = subject_of(_on_cpu(model), data, name)
        subject = replace(subject, free_axes=free_axes, augment=augment, loss=loss)
    elif isinstance(model, nn.Module):
        task = GivenTask(
            name or type(unwrap(model)).__name__, _on_cpu(model), given, score, classes
        )
        subject = Subject(task.name, model, task, free_axes=free_axes, augment=augment, loss=loss)
    else:
        subject = _ready_subject(model, {**given, "score": score, "loss": loss, "data": data})
    if file is not None:
        check_file(subject, file)
    chosen = None if recipe == DEFAULT else recipe
    chosen = load_recipe(chosen) if isinstance(chosen, str) else chosen
    if isinstance(model, nn.Module) and data is None:
        _check_training(chosen, train)
    job = Job(
        subject,
        aims,
        chosen,
        tuple(keep_float),
        model if isinstance(model, str) else "",
        search_minutes,
    )
    store = None if fresh else user_store()
    with torch.random.fork_rng(devices=[]), _folder(out) as folder:
        torch.manual_seed(seed)
        return Compressed(do_job(job, settings, folder, store))


@contextmanager
def _folder(out: str | Path | None) -> Iterator[Path]:
    """Yield the folder of the files; one of our own is gone again where none were made."""
    if out is not None:
        yield Path(out)
        return
    folder = Path(tempfile.mkdtemp(prefix="edgedl-"))
    try:
        yield folder
    finally:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _on_cpu(module: nn.Module) -> nn.Module:
    """Return a module out of its wrappers.

    Raises:
        BadInputError: it is TorchScript, or has weights that are not float32 on the CPU.
    """
    module = unwrap(module)
    if isinstance(module, torch.jit.ScriptModule):
        raise BadInputError("the module is TorchScript: give the torch module it was made from")
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if value.device.type != "cpu":
            raise BadInputError(f"{name} is on the device {value.device}: give module.cpu()")
        if value.is_floating_point() and value.dtype != torch.float32:
            kind = str(value.dtype).removeprefix("torch.")
            raise BadInputError(f"{name} is {kind}: give module.float()")
    return module


def _ready_subject(model: object, given: dict[str, object]) -> Subject:
    """Return a subject that has its own data.

    Raises:
        BadInputError: there is none of that name, or data are given, too.
    """
    if not isinstance(model, str | Subject):
        raise BadInputError(
            f"model is a {type(model).__name__}: it must be a torch module, a Subject, or the name "
            "of a reference model"
        )
    subject = model if isinstance(model, Subject) else find_subject(model)
    named = [name for name, value in given.items() if value is not None]
    if named:
        raise BadInputError(f"a Subject has its own data: leave {', '.join(named)} out")
    return subject


def _check_training(recipe: Recipe | None, train: object) -> None:
    """Refuse a recipe that trains where there is nothing to train on."""
    if recipe is None or train is not None:
        return
    with_train = ArrayTask("", {TRAIN: lambda: Samples((), np.zeros(0))})
    trains = [stage.name for stage in recipe.stages if TRAIN in stage.splits(with_train)]
    if trains:
        raise BadInputError(
            f"the recipe trains ({', '.join(trains)}) and there is no training data: give train=, "
            "batches of (x, labels)"
        )


def _targets(given: str | Target | Sequence[str | Target]) -> tuple[Target, ...]:
    """Return targets.

    Raises:
        BadInputError: there is no such target, or one is given twice.
    """
    each = [given] if isinstance(given, str | Target) else given
    if not isinstance(each, Sequence) or not all(isinstance(t, str | Target) for t in each):
        raise BadInputError(f"targets are {given!r}: give names or Target objects")
    found = tuple(load_target(t) if isinstance(t, str) else t for t in each)
    names = [target.name for target in found]
    if not names or len(set(names)) < len(names):
        raise BadInputError(f"targets are {names}: name each once")
    return found
