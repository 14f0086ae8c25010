"""Arrays in .npz files."""

import numpy as np

from edgedl.runtime.bundle.array_file import open_arrays
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.sources.division import divide
from edgedl.runtime.task.sources.reference import DataReference
from edgedl.runtime.task.sources.source import ArraySplit, Source

OPTIONS = ("labels",)
LABELS = ("labels", "label", "targets", "target", "y")


def arrays(reference: DataReference) -> Source:
    """Read the arrays of a file: inputs [N, ...] in the order of their names in it, and labels.

    The array that ``labels=NAME`` names is the labels; else the one that is called so, or y.
    Samples that are equal are in one split.

    Raises:
        BadInputError: it is no such file, or its arrays have different lengths.
    """
    path = reference.path
    found = open_arrays(path)
    named = reference.options.get("labels")
    if named is not None and named not in found:
        raise BadInputError(f"{path} has no array '{named}'; it has {', '.join(found)}")
    label = named or next((name for name in LABELS if name in found), None)
    inputs = [x for name, x in found.items() if name != label]
    if not inputs:
        raise BadInputError(f"{path} has no array of inputs beside '{label}'")
    for name, x in found.items():
        if x.ndim == 0 or x.dtype.kind not in "biuf":
            raise BadInputError(
                f"array '{name}' of {path} is {x.dtype}: it must be numbers [N, ...]"
            )
    lengths = {name: len(x) for name, x in found.items()}
    if len(set(lengths.values())) > 1:
        each = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise BadInputError(f"the arrays of {path} have different lengths: {each}")
    labels = None if label is None else found[label]
    classes = labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu"
    groups = [b"".join(np.ascontiguousarray(x[i]).tobytes() for x in inputs)
              for i in range(len(inputs[0]))]  # fmt: skip
    parts = divide(groups, labels.tolist() if classes and labels is not None else None)
    splits = {s: ArraySplit.rows(inputs, labels, chosen) for s, chosen in parts.items()}
    known = "without labels" if label is None else f"labels are '{label}'"
    return Source(path.stem, splits, (), None, (f"inputs are {len(inputs)} arrays, {known}",))
