"""Find the integers of a weight that a converter has written as floats."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from edgedl.compress.encodings.grouped import GroupedWeight
from edgedl.compress.errors import ExportError

# Products of float32 that are rounded twice differ by no more than this share.
ROUNDING = 1e-6

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Folded:
    """A weight that a converter has written as floats, multiplied by constants or not.

    Attributes:
        path: of the weight.
        weight: its integers, with what multiplies the rows in the scales.
        columns: what multiplies the columns, float32 [C_in]; None for nothing.
    """

    path: str
    weight: GroupedWeight
    columns: Floats | None = None


class WeightTable:
    """Quantized weights by the values they dequantize to.

    Converters rename, transpose and merge constants: two weights of the same values have the same
    integers, too. TFLite's folds what multiplies a layer's outputs into the rows of its weight, and
    what multiplies its inputs, as the scale of a layer norm, into the columns.
    """

    def __init__(self, weights: Mapping[str, GroupedWeight]) -> None:
        """Dequantize every weight; nothing is found yet."""
        self._weights = dict(weights)
        self._paths = {_key(w.dequantized().numpy()): path for path, w in weights.items()}
        self._found: set[str] = set()

    def find(self, values: npt.NDArray[np.float32]) -> tuple[str, GroupedWeight] | None:
        """Return the path and integers of a float32 array [C_out, ...], None if it is another."""
        path = self._paths.get(_key(values))
        if path is None:
            return None
        self._found.add(path)
        return path, self._weights[path]

    def find_folded(self, values: Floats) -> Folded | None:
        """Return the same where a converter may have multiplied rows or columns by constants."""
        exact = self.find(values)
        if exact is not None:
            return Folded(*exact)
        for path in self._paths.values():
            if path in self._found or self._weights[path].integers.shape != values.shape:
                continue
            folded = _as_folded(path, self._weights[path], values)
            if folded is not None:
                self._found.add(path)
                return folded
        return None

    def check_complete(self) -> None:
        """Make sure that no weight has stayed float.

        Raises:
            ExportError: the file does not hold a weight as the network has it.
        """
        named = {self._paths[_key(self._weights[p].dequantized().numpy())] for p in self._weights}
        missing = sorted(named - self._found)
        if missing:
            raise ExportError(
                f"the converter rewrote the weight '{missing[0]}', so its integers cannot be put "
                "into the file: name its layer in keep_float"
            )


def pack_int4(integers: npt.NDArray[np.int8]) -> bytes:
    """Return 4-bit integers, two in a byte, the first in its low half.

    >>> pack_int4(np.array([1, -1, 7], np.int8)).hex()
    'f107'
    """
    padded = np.zeros(integers.size + integers.size % 2, np.uint8)
    padded[: integers.size] = integers.reshape(-1).view(np.uint8) & 15
    return (padded[0::2] | (padded[1::2] << 4)).tobytes()


def _as_folded(path: str, weight: GroupedWeight, values: Floats) -> Folded | None:
    """Return what must be multiplied to get an array of the weight's shape; None if it is none."""
    whole = weight.dequantized().numpy()
    rows = _factors(whole, values)
    if rows is not None and (rows > 0).all():
        scales = weight.scales * torch.from_numpy(rows)[:, None]
        return Folded(path, replace(weight, scales=scales))
    columns = _factors(whole.T, values.T) if whole.ndim == 2 else None
    return None if columns is None else Folded(path, weight, columns)


def _factors(weight: Floats, values: Floats) -> Floats | None:
    """Return what each row is multiplied by, float32 [rows]; None if they are no multiples."""
    rows, multiples = weight.reshape(len(weight), -1), values.reshape(len(values), -1)
    largest = np.abs(rows).argmax(1)[:, None]
    before, after = (np.take_along_axis(a, largest, 1)[:, 0] for a in (rows, multiples))
    silent = before == 0
    factors = np.where(silent, 1, after / np.where(silent, 1, before))
    same = np.allclose(multiples, rows * factors[:, None], rtol=ROUNDING, atol=0)
    return factors.astype(np.float32) if same else None


def _key(values: npt.NDArray[np.float32]) -> tuple[int, bytes]:
    """Return what tells weights apart: their rows, and their values in order."""
    return len(values), np.ascontiguousarray(values, np.float32).tobytes()
