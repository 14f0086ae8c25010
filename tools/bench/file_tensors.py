"""Which array of a task goes into which input of somebody else's file, and how."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from edgedl.runtime.backend import Array
from edgedl.runtime.bundle.layout import CHANNELS_FIRST, CHANNELS_LAST, Layout
from edgedl.runtime.bundle.manifest import TensorSpec
from edgedl.runtime.errors import BadInputError

# Of more inputs not every order is tried.
MOST_REORDERED = 6
# Axes of a batch of pictures.
PICTURE = 4


@dataclass(frozen=True)
class FileTensors:
    """The tensors of a file as a task sees them.

    Attributes:
        inputs: of the file, in the order of the task's arrays.
        outputs: of the file, in its order.
        logical_inputs: what the task gives.
        logical_outputs: what the task gets.
        notes: what was found out by the shapes alone, one line each.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    logical_inputs: tuple[TensorSpec, ...]
    logical_outputs: tuple[TensorSpec, ...]
    notes: tuple[str, ...]


def fit_tensors(
    path: Path,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    given: Sequence[Array],
) -> FileTensors:
    """Fit a file to the arrays of a task.

    An input may have its channels last where the task has them first, or the other way round, and
    the file may have its inputs in another order, if that is the only one whose shapes fit. Where
    the channels of an input are moved, so are those of outputs with as many axes. A file that says
    its layouts is taken at its word.

    Args:
        path: of the file, for messages.
        inputs: of the file.
        outputs: of the file.
        given: some samples, one array [N, ...] per input.

    Raises:
        BadInputError: the file takes something else.
    """
    if len(given) != len(inputs):
        raise BadInputError(f"{path} takes {len(inputs)} inputs, the task gives {len(given)}")
    for kind, spec in [("input", s) for s in inputs] + [("output", s) for s in outputs]:
        if not spec.shape:
            raise BadInputError(f"{kind} '{spec.name}' of {path} has no batch axis")
    batch = next((spec.shape[0] for spec in inputs if spec.shape[0] not in (None, 1)), None)
    if batch is not None:
        raise BadInputError(
            f"{path} takes batches of {batch}, but one sample is timed: export it for a batch "
            "of 1 or any batch"
        )
    fitted = _fit_all(inputs, given)
    if fitted is None:
        raise BadInputError(
            f"{path} takes {_list(s.shape for s in inputs)}, the task gives "
            f"{_list(x.shape for x in given)}"
        )
    returned = _outputs_in_layout(outputs, inputs, fitted)
    return FileTensors(
        tuple(fitted),
        tuple(returned),
        tuple(_logical(s, _given_type(s, x)) for s, x in zip(fitted, given, strict=True)),
        tuple(_logical(s, _float_for_small(s)) for s in returned),
        (*_notes(path, inputs, fitted, returned), *_doubts(path, fitted, given)),
    )


def _outputs_in_layout(
    outputs: Sequence[TensorSpec], inputs: Sequence[TensorSpec], fitted: Sequence[TensorSpec]
) -> list[TensorSpec]:
    """Return the outputs as the file says they are, else in the layout of inputs of that rank."""
    if any(spec.layout is not None for spec in (*inputs, *outputs)):
        return list(outputs)
    moved = {len(spec.shape): spec.layout for spec in fitted if spec.layout is not None}
    return [msgspec.structs.replace(s, layout=moved.get(len(s.shape))) for s in outputs]


def _fit_all(inputs: Sequence[TensorSpec], given: Sequence[Array]) -> list[TensorSpec] | None:
    """Return the inputs in the order of the arrays, each with its layout; None if none fits."""
    found = _fit_in_order(inputs, given)
    if found is not None or len(inputs) > MOST_REORDERED:
        return found
    orders = [_fit_in_order(order, given) for order in itertools.permutations(inputs)]
    fitting = [order for order in orders if order is not None]
    return fitting[0] if len(fitting) == 1 else None


def _fit_in_order(inputs: Sequence[TensorSpec], given: Sequence[Array]) -> list[TensorSpec] | None:
    fitted = [_fit(spec, x) for spec, x in zip(inputs, given, strict=True)]
    known = [spec for spec in fitted if spec is not None]
    return known if len(known) == len(fitted) else None


def _fit(spec: TensorSpec, x: Array) -> TensorSpec | None:
    """Return an input with the layout in which it takes an array; None if there is none."""
    return next(iter(_fits(spec, x.shape)), None)


def _fits(spec: TensorSpec, shape: tuple[int, ...]) -> list[TensorSpec]:
    """Return an input with every layout in which it takes a shape, first as it is.

    A file that says the layout has no other.
    """
    if spec.layout is not None:
        return [spec] if _takes(spec.network_shape, shape) else []
    axes = len(spec.shape)
    layouts: list[Layout] = [d[axes] for d in (CHANNELS_LAST, CHANNELS_FIRST) if axes in d]
    moved = [msgspec.structs.replace(spec, layout=layout) for layout in (None, *layouts)]
    return [m for m in moved if _takes(m.network_shape, shape)]


def _takes(shape: tuple[int | None, ...], found: tuple[int, ...]) -> bool:
    pairs = zip(shape[1:], found[1:], strict=False)
    return len(shape) == len(found) and all(want in (None, have) for want, have in pairs)


def _logical(spec: TensorSpec, dtype: str) -> TensorSpec:
    """Return what the task gives or gets: any batch, floats where the file has a grid."""
    return TensorSpec.of(spec.name, (None, *spec.network_shape[1:]), dtype)


def _given_type(spec: TensorSpec, x: Array) -> str:
    """Return the type that a task gives: whole numbers of any size where the file takes some."""
    whole = x.dtype.kind in "iu" and np.dtype(spec.dtype).kind in "iu"
    as_it_is = spec.scale is None and (whole or x.dtype == np.dtype(spec.dtype))
    return str(x.dtype) if as_it_is else _float_for_small(spec)


def _float_for_small(spec: TensorSpec) -> str:
    return "float32" if np.dtype(spec.dtype).itemsize < 4 else spec.dtype


def _notes(
    path: Path,
    inputs: Sequence[TensorSpec],
    fitted: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
) -> list[str]:
    notes = []
    if [s.name for s in inputs] != [s.name for s in fitted]:
        names = ", ".join(spec.name for spec in fitted)
        notes.append(f"{path} takes the inputs in a different order than the task: {names}")
    for kind, specs in (("input", fitted), ("output", outputs)):
        for spec in (spec for spec in specs if spec.layout is not None):
            notes.append(
                f"{path} has {kind} '{spec.name}' as {spec.layout} {_list([spec.shape])}, the task "
                f"as {_list([spec.network_shape])}: its channels are transposed"
            )
    return notes


def _doubts(path: Path, fitted: Sequence[TensorSpec], given: Sequence[Array]) -> list[str]:
    """Say of which pictures the shape does not tell where the channels are."""
    pairs = [(s, x) for s, x in zip(fitted, given, strict=True) if len(s.shape) >= PICTURE]
    return [
        f"{path} may have the channels of '{spec.name}' first or last, its shape fits both: "
        "assumed to be as in the task"
        for spec, x in pairs
        if spec.layout is None and len(_fits(spec, x.shape)) > 1
    ]


def _list(shapes: Iterable[tuple[int | None, ...]]) -> str:
    """Return shapes as people write them; None is any size."""
    each = ("[" + ", ".join("N" if d is None else str(d) for d in s) + "]" for s in shapes)
    return ", ".join(each)
