"""What a user can get wrong in a subject, found before any work."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from edgedl.compress.errors import first_line, user_line
from edgedl.compress.subject.outputs import as_tuple
from edgedl.compress.subject.picture_scale import check_pictures, check_preprocessing
from edgedl.compress.subject.subject import Subject
from edgedl.compress.subject.untouched import evaluating
from edgedl.runtime.backend import Array
from edgedl.runtime.errors import BadInputError, EdgedlError
from edgedl.runtime.preprocess.image import ImagePreprocessing
from edgedl.runtime.task.checked_task import CheckedTask
from edgedl.runtime.task.checks import TOP1, check_labels
from edgedl.runtime.task.task import Batch, Task

# Samples of a split that are looked at.
LOOKED_AT = 250
# Samples that the network computes and the score is tried on.
TRIED = 2


def check_subject(subject: Subject) -> tuple[str, ...]:
    """Read the first samples of each split, run the network on two of them, and score those.

    Returns:
        What was done with the data that the user may not expect.

    Raises:
        BadInputError: data, network and score do not fit together; the message says what does not.
    """
    task = CheckedTask.of(subject.task)
    if isinstance(task.preprocessing, ImagePreprocessing):
        check_preprocessing(task.preprocessing)
    splits = {split: _first_samples(task, split) for split in ("calibration", "test")}
    subject.check_test_inputs()
    for split, batch in splits.items():
        x, pictures = batch.inputs[0], task.preprocessing
        if isinstance(pictures, ImagePreprocessing) and x.dtype.kind == "f" and x.size:
            check_pictures(f"split '{split}' of task '{task.name}'", x, pictures)
    outputs = try_module(subject.module, splits["test"].inputs)
    if task.metric == TOP1 and outputs[0].ndim == 2:
        count = outputs[0].shape[1]
        for split, batch in splits.items():
            where = f"split '{split}' of task '{task.name}'"
            check_labels(where, batch.labels, count, f"and the network has {count} outputs")
    _score(task, outputs, splits["test"].labels[:TRIED])
    return task.notes


def _first_samples(task: Task, split: str) -> Batch:
    batch = next(iter(task.batches(split, LOOKED_AT)), None)
    if batch is None or len(batch.labels) == 0:
        raise BadInputError(f"the split '{split}' of task '{task.name}' has no samples")
    return batch


def try_module(module: nn.Module, arrays: Sequence[Array]) -> tuple[Tensor, ...]:
    """Return the outputs [2, ...] of the first two samples.

    Args:
        module: on the CPU.
        arrays: an input [N, ...] each.

    Raises:
        BadInputError: the module cannot compute them.
    """
    inputs = tuple(torch.tensor(np.asarray(x[:TRIED])) for x in arrays)
    sizes = [f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}" for x in inputs]
    try:
        with evaluating(module), torch.no_grad():
            return as_tuple(module(*inputs))
    except EdgedlError:
        raise
    except Exception as error:
        # The user's module may raise anything.
        raise BadInputError(
            f"{type(module).__name__} cannot compute the inputs of the task, one array for each "
            f"argument of forward, {', '.join(sizes)}: {type(error).__name__}: {first_line(error)}"
        ) from error


def _score(task: Task, outputs: tuple[Tensor, ...], labels: Array) -> None:
    arrays = [y.float().numpy() for y in outputs]
    try:
        task.score(arrays, labels)
    except EdgedlError:
        raise
    except Exception as error:
        if user_line(error) is not None:
            raise
        # A score of a library's, whose traceback has no line of the user's.
        raise BadInputError(
            f"the score of task '{task.name}' cannot take outputs "
            f"{[list(y.shape) for y in outputs]} and labels {labels.dtype} {list(labels.shape)}: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error
