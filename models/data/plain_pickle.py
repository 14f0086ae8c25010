"""Read pickles of plain containers and numeric arrays without building anything they name.

Data sets are published as pickles. An unpickler that only allows numpy's own classes is not
enough: the state of a pickled dtype can make numpy follow bytes of the file as a pointer. Here the
file's arrays become small records, and numpy sees names of plain types and bytes alone.
"""

import pickle
from typing import Any, BinaryIO

import numpy as np

_KINDS = frozenset("iufb")


def load_plain_pickle(file: BinaryIO) -> Any:
    """Return the content: dicts, lists, strings (bytes in old pickles), numbers, numpy arrays.

    Arrays of objects become lists.

    Raises:
        Exception: whatever pickle and numpy raise for a damaged or foreign file.
    """
    return _resolve(_PlainUnpickler(file, encoding="bytes").load())


class _Dtype:
    """Stands for a numpy dtype: its name, such as "f8", and its byte order."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = name.decode("ascii") if isinstance(name, bytes) else str(name)
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        self.order = order.decode("ascii") if isinstance(order, bytes) else str(order)

    def plain(self) -> "np.dtype[Any]":
        if self.name[:1] not in _KINDS or self.order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"arrays of {self.name!r} have no place in a data file")
        return np.dtype(self.order.replace("|", "=") + self.name)


class _Array:
    """Stands for a numpy array until its state has been read."""

    def __init__(self, *_: Any) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def plain(self) -> Any:
        _, shape, dtype, fortran, raw = self.state
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("an array without a type")
        if dtype.name[:1] == "O":
            items = [_resolve(item) for item in raw]
            return items[0] if shape == () else items
        flat = np.frombuffer(raw, dtype.plain())
        sizes = [int(size) for size in shape]
        return flat.reshape(sizes[::-1]).T if fortran else flat.reshape(sizes)


class _Scalar:
    """Stands for one number of a numpy type."""

    def __init__(self, dtype: Any, raw: Any) -> None:
        self.dtype, self.raw = dtype, raw

    def plain(self) -> Any:
        return np.frombuffer(self.raw, self.dtype.plain())[0]


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the encoding {encoding!r} has no place in a data file")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    **{
        (f"numpy.{core}.multiarray", name): stand_in
        for core in ("core", "_core")
        for name, stand_in in (("_reconstruct", _Array), ("scalar", _Scalar))
    },
}


class _PlainUnpickler(pickle.Unpickler):
    """Finds the stand-ins above and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _STAND_INS:
            return _STAND_INS[module, name]
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a data file")


def _resolve(value: Any) -> Any:
    """Replace every stand-in inside containers by the array or number it stands for."""
    if isinstance(value, (_Array, _Scalar)):
        return value.plain()
    if isinstance(value, dict):
        return {key: _resolve(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_resolve(item) for item in value]
    return value
