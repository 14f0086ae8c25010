"""Find what the command line calls SUBJECT: a reference model, or the user's own function."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

from edgedl.compress.user_code import call_user_function, names_user_code
from edgedl.models.data.dataset import ImageDataset
from edgedl.models.data.datasets import DATASETS, find_dataset
from edgedl.models.reference.pretrained import build, load_pretrained, load_record, load_weights
from edgedl.models.reference.table import ReferenceModel, find_model
from edgedl.models.reference.tasks import make_task
from edgedl.runtime.bundle.state import State, Stateful
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.checked_task import CheckedTask
from edgedl.runtime.task.sources.open_source import names_source, open_source
from edgedl.runtime.task.sources.source_task import SourceTask
from edgedl.runtime.task.task import Task
from edgedl.tools.terminal.names import names_onnx

if TYPE_CHECKING:
    from torch import nn

    from edgedl.compress.subject.subject import Augment, Subject


def find_subject(reference: str, weights: Path | None = None, data: str | None = None) -> "Subject":
    """Return the subject of a reference model's name, ``file.py:function``, or an ONNX file.

    Args:
        reference: what the user called it.
        weights: a safetensors file instead of the weights that ship with a reference model.
        data: by name, or a file of calibration samples, where the function returns a module, or
            for an ONNX file.

    Raises:
        BadInputError: there is no such model, file or function, or its code fails.
    """
    from edgedl.compress.subject.subject import Subject

    if names_user_code(reference):
        if weights is not None:
            raise BadInputError(f"--weights is for reference models: load them in {reference}")
        return _of_user(reference, call_user_function(reference), data)
    if names_onnx(reference):
        return _of_file(Path(reference), weights, data)
    if data is not None:
        raise BadInputError(f"{reference} is a reference model and has its own data: leave it out")
    model = find_model(reference)
    if weights is None:
        trained_on = load_record(model).dataset
        module, licence = load_pretrained(model), model.licence
    else:
        module = load_weights(build(model), weights.read_bytes(), str(weights))
        licence, trained_on = "not stated (the user's weights)", model.dataset
    return Subject(
        name=model.name,
        module=module,
        task=make_task(model.dataset),
        licence=licence,
        data=f"{trained_on}; calibration on training data, score on the whole test split",
        free_axes=free_axes(model),
        augment=_augmentation(model),
        states=_states(module) if model.stateful else (),
    )


def _of_user(reference: str, made: object, data: str | None) -> "Subject":
    """Return the subject that a user's function returned, or that of a module and its data."""
    from torch import nn

    from edgedl.compress.subject.subject import Subject
    from edgedl.tools.jobs.named_data import subject_of

    if isinstance(made, nn.Module):
        if data is None:
            raise BadInputError(
                f"{reference} returned a module: name its data, --data imagefolder:DIR?size=N for "
                "example, or return edgedl.Subject"
            )
        return subject_of(made, data)
    if not isinstance(made, Subject):
        raise BadInputError(
            f"{reference} returned {type(made).__name__}, expected edgedl.Subject, or a module and "
            "--data"
        )
    if data is not None:
        raise BadInputError(f"the Subject of {reference} has its own data: leave --data out")
    return made


def _of_file(path: Path, weights: Path | None, data: str | None) -> "Subject":
    """Return the subject of an ONNX file and its data."""
    from edgedl.tools.jobs.named_data import onnx_subject

    if weights is not None:
        raise BadInputError(f"--weights is for reference models: {path} has its own")
    if data is None:
        raise BadInputError(
            f"{path} needs samples to calibrate with: --calibration FILE.npz, or --data "
            "imagefolder:DIR?size=N for example"
        )
    return onnx_subject(path, data)


def _augmentation(model: ReferenceModel) -> "Augment | None":
    """Return what the training of a picture model changes at random."""
    if model.plan is None or not isinstance(find_dataset(model.dataset), ImageDataset):
        return None
    from edgedl.models.reference.image_batches import Augmentation

    return Augmentation.of(model.plan)


def _states(module: "nn.Module") -> tuple[State, ...]:
    """Return what a network of single steps keeps, as its method ``state`` says."""
    return cast(Stateful, module).state()


def free_axes(model: ReferenceModel) -> tuple[int, ...]:
    """Return the axes that stay free: the batch, and the time of a recurrent network."""
    return (0, 1) if model.family == "recurrent" else (0,)


def find_task(bundle_task: str, reference: str | None) -> Task:
    """Return the task to score a bundle or a file with.

    Args:
        bundle_task: name of the bundle's task, which may be a data set of edgedl's.
        reference: the user's ``file.py:function``, which may return a Task or a Subject; a file
            alone stands for its ``task``. Or the name of a data set, or of a reference model, or
            data by name (``open_source``). None takes the bundle's.

    Raises:
        BadInputError: the bundle's task is not a known one and no function is given.
    """
    if reference is not None and names_source(reference):
        return SourceTask(open_source(reference))
    if reference is not None and not names_user_code(reference):
        return make_task(reference if reference in DATASETS else find_model(reference).dataset)
    if reference is not None:
        made = call_user_function(reference, ("task", "subject"))
        carried = getattr(made, "task", made)  # a Subject carries its task
        if not hasattr(carried, "batches"):
            raise BadInputError(f"{reference} returned {type(made).__name__}, expected a task")
        return CheckedTask.of(cast(Task, carried))
    if bundle_task not in DATASETS:
        raise BadInputError(
            f"the bundle's task '{bundle_task}' has no data in edgedl: "
            "give the task with --task file.py:function"
        )
    return make_task(find_dataset(bundle_task).name)
