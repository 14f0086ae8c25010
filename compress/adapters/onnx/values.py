"""What the nodes of an ONNX graph give each other while torch computes it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgedl.runtime.errors import BadInputError

# Larger constants are data, no numbers that an operator is told.
MOST_NUMBERS = 4096


class NotImportedError(BadInputError):
    """A node of an ONNX file has no counterpart here."""


@dataclass(frozen=True)
class Constant:
    """A tensor that the file stores.

    Attributes:
        tensor: as torch computes with it.
        array: the same for numbers that an operator is told; None where it is large.
    """

    tensor: Tensor
    array: npt.NDArray[Any] | None


class Sizes(NamedTuple):
    """Whole numbers made of the sizes of tensors, which may be free.

    Attributes:
        numbers: int, or torch's symbol of one.
        scalar: whether they are one number without an axis.
    """

    numbers: tuple[Any, ...]
    scalar: bool = False


Value = Tensor | Constant | Sizes


def tensor_of(value: Value) -> Tensor:
    """Return a value as a tensor; sizes become int64."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Constant):
        return value.tensor
    parts = [n if isinstance(n, Tensor) else torch.scalar_tensor(n, dtype=torch.int64)
             for n in value.numbers]  # fmt: skip
    if value.scalar:
        return parts[0]
    return torch.stack(parts) if parts else torch.zeros(0, dtype=torch.int64)


def is_known(value: Value | None) -> bool:
    """Say whether a value is the same for all inputs, as far as sizes are known."""
    if isinstance(value, Sizes):
        return all(isinstance(n, int) for n in value.numbers)
    return value is None or isinstance(value, Constant)


def sizes_of(value: Value, what: str) -> tuple[Any, ...]:
    """Return whole numbers.

    Raises:
        NotImportedError: they are computed from the input's values.
    """
    if isinstance(value, Sizes):
        return value.numbers
    return tuple(int(n) for n in _array(value, what).reshape(-1))


def numbers_of(value: Value, what: str) -> list[float]:
    """Return numbers.

    Raises:
        NotImportedError: they are computed from the input's values.
    """
    if isinstance(value, Sizes):
        return list(value.numbers)
    return [float(n) for n in _array(value, what).reshape(-1)]


def number_of(value: Value | None, default: float, what: str) -> float:
    """Return one number; the default where there is none.

    Raises:
        NotImportedError: it is computed from the input's values.
    """
    return default if value is None else numbers_of(value, what)[0]


def product(numbers: Sequence[Any]) -> Any:
    """Return the product of sizes."""
    result: Any = 1
    for number in numbers:
        result = result * number
    return result


def constant_of(array: npt.NDArray[Any]) -> Constant:
    """Return a stored tensor; floats become float32, integers int64."""
    array = np.array(array)
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
    elif array.dtype.kind in "iu":
        array = array.astype(np.int64)
    small = array if array.size <= MOST_NUMBERS else None
    return Constant(torch.from_numpy(array), small)


def _array(value: Value, what: str) -> npt.NDArray[Any]:
    if isinstance(value, Constant) and value.array is not None:
        return value.array
    raise NotImportedError(
        f"its {what} depend on the values of the input: a file with fixed shapes cannot have that"
    )
