"""What a user's own data and score must be, said before anything is computed with them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.kept_splits import Array, Samples

Scores = npt.NDArray[np.float64]

# The metric whose labels are numbers of classes.
TOP1 = "top1"


def checked_samples(where: str, given: Any) -> Samples:
    """Return inputs and labels as arrays of one length.

    Args:
        where: what errors call them.
        given: ``Samples``, ``Batch``, or another pair of inputs and labels.

    Raises:
        BadInputError: it is no such pair, or its parts have different lengths.
    """
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise BadInputError(
            f"{where} gave {_kind(given)}: it must give Samples(inputs, labels), where inputs is a "
            "tuple of arrays"
        )
    inputs, labels = given
    if not isinstance(inputs, tuple | list):
        raise BadInputError(
            f"the inputs of {where} are {_kind(inputs)}: they must be a tuple of arrays, "
            "Samples((x,), labels) for a network of one input"
        )
    arrays = tuple(_as_array(f"input {i} of {where}", x) for i, x in enumerate(inputs))
    numbers = _as_array(f"labels of {where}", labels)
    if any(len(x) != len(numbers) for x in arrays):
        raise BadInputError(
            f"{where}: {len(numbers)} labels but inputs of lengths {[len(x) for x in arrays]}"
        )
    return Samples(arrays, numbers)


def narrowed(samples: Samples) -> Samples:
    """Return samples whose float64 inputs are float32, which files take; themselves without any."""
    if all(x.dtype != np.float64 for x in samples.inputs):
        return samples
    inputs = (x.astype(np.float32) if x.dtype == np.float64 else x for x in samples.inputs)
    return Samples(tuple(inputs), samples.labels)


def cast_note(task: str) -> str:
    """Return the sentence on inputs that were narrowed."""
    return f"inputs of task '{task}' are float64: they were cast to float32"


def check_labels(where: str, labels: Array, count: int, of: str) -> None:
    """Refuse labels that are no numbers of classes.

    Args:
        where: whose labels they are, for errors.
        labels: [N].
        count: of classes.
        of: where the count is from, for errors.

    Raises:
        BadInputError: one is; the message has it.
    """
    if labels.dtype.kind not in "biuf":
        raise BadInputError(
            f"labels of {where} are {labels.dtype}: the metric {TOP1} takes numbers of classes, "
            "from 0"
        )
    numbers = labels.astype(np.float64)
    wrong = numbers[(numbers < 0) | (numbers >= count) | (numbers != np.floor(numbers))]
    if wrong.size:
        raise BadInputError(
            f"{where} has the label {wrong[0]:g}, {of}: labels are 0 to {count - 1}"
        )


def checked_scores(task: str, given: Any, count: int) -> Scores:
    """Return the scores of a batch as float64 [count].

    Raises:
        BadInputError: they are not one finite number per sample.
    """
    try:
        scores = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        raise BadInputError(
            f"the score of task '{task}' must be one finite number per sample [{count}], "
            f"got {_kind(given)}"
        ) from None
    wanted = f"the score of task '{task}' must be one finite number per sample [{count}]"
    if scores.shape != (count,):
        raise BadInputError(f"{wanted}, got shape {list(scores.shape)}")
    if not np.isfinite(scores).all():
        raise BadInputError(f"{wanted}, {int((~np.isfinite(scores)).sum())} are not finite")
    return scores


def _as_array(what: str, given: Any) -> Array:
    if isinstance(given, np.ndarray):
        array = given
    else:
        try:
            array = np.asarray(given)
        except (TypeError, ValueError, RuntimeError) as error:
            raise BadInputError(f"{what} is {_kind(given)}, no array ({error})") from error
    if array.ndim == 0 or array.dtype == object:
        raise BadInputError(f"{what} is {_kind(given)}: it must be an array [N, ...] of numbers")
    return array


def _kind(value: Any) -> str:
    """Return what a value is, in a few words."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"one {type(value).__name__} {value.dtype} {list(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"
