"""Find the integers of a weight that a converter has written as floats."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgedl.compress.export.errors import ExportError
from edgedl.compress.quantize.grouped import GroupedWeight


class WeightTable:
    """Quantized weights by the values they dequantize to.

    Converters rename, transpose and merge constants, but leave their values alone: two weights of
    the same values have the same integers, too.
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


def _key(values: npt.NDArray[np.float32]) -> tuple[int, bytes]:
    """Return what tells weights apart: their rows, and their values in order."""
    return len(values), np.ascontiguousarray(values, np.float32).tobytes()
