"""Read .npy and .npz files that may be damaged, or made to fill the memory.

A compressed archive can claim a thousand times its size, and a header any shape at all; numpy
reserves memory for both before it looks at the data.
"""

import io
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
import numpy.typing as npt

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.wording import reason

Array = npt.NDArray[np.generic]

# An archive's arrays may take so much memory, or so many times its own size if that is more.
MOST_BYTES = 1 << 30
MOST_TIMES = 4
ZIP = b"PK"
NPY = b"\x93NUMPY"
# Members of these kinds give at most as many bytes as the archive says; others are unpacked whole.
KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What zipfile and numpy raise besides ValueError: for a damaged archive, a kind that is not known,
# a password, a member cut short, and a header that is no Python or describes no array.
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    tokenize.TokenError,
    TypeError,
    OverflowError,
    IndexError,
)
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def open_arrays(path: Path, names: Sequence[str] = ()) -> dict[str, Array]:
    """Return the arrays of a user's file by their names; that of a .npy file under "".

    Raises:
        BadInputError: it cannot be read; the message has the reason.
    """
    try:
        loaded = load_arrays(path, names)
    except Exception as error:
        # A damaged array file raises anything from MemoryError to tokenize.TokenError.
        said = " ".join(str(error).split())
        raise BadInputError(f"{path} is not a readable array file ({said})") from error
    return loaded if isinstance(loaded, dict) else {"": loaded}


def load_arrays(source: Path | BinaryIO, names: Sequence[str] = ()) -> Array | dict[str, Array]:
    """Return the array of a .npy file, or those of a .npz by their names.

    Args:
        source: the file.
        names: arrays of a .npz that are wanted; all are read where one of them is not there.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds something else, or more than its size lets expect.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            return load_arrays(file, names)
    source.seek(0)
    start = source.read(len(ZIP))
    size = source.seek(0, 2)
    source.seek(0)
    try:
        if start != ZIP:
            return _read_array(source, size)
        with zipfile.ZipFile(source) as archive:
            return _read_archive(archive, size, names)
    except DAMAGED as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def load_archive(content: bytes) -> dict[str, Array]:
    """Return the arrays of a .npz file's content by their names.

    Raises:
        ValueError: as ``load_arrays``, or it is a single array.
    """
    arrays = load_arrays(io.BytesIO(content))
    if not isinstance(arrays, dict):
        raise ValueError("a single array, no archive")
    return arrays


def read_npy_stream(stream: IO[bytes]) -> Iterator[Array]:
    """Yield the arrays of a stream that holds .npy files one behind the other, until it ends.

    Raises:
        BadInputError: it holds something else, an array of more than 1 GiB, or ends inside of one.
    """
    while start := stream.read(len(NPY) + 2):
        try:
            version = np.lib.format.read_magic(io.BytesIO(start))
            if version not in _HEADERS:
                raise ValueError(f"arrays of format {version} are not read")
            shape, by_column, dtype = _HEADERS[version](stream)
            size = math.prod(shape) * dtype.itemsize
            sizes = [type(d) is int and d >= 0 for d in shape]
            if dtype.hasobject or not dtype.itemsize or size > MOST_BYTES or not all(sizes):
                raise ValueError(f"its header says {list(shape)} of {dtype}")
            content = stream.read(size)
            if len(content) < size:
                raise ValueError(f"it ends after {len(content)} of {size} bytes of an array")
            array = np.frombuffer(content, dtype)
            array = array.reshape(shape, order="F" if by_column else "C")
        except (*DAMAGED, ValueError) as error:
            raise BadInputError(f"stdin is no stream of .npy arrays: {reason(error)}") from error
        yield array


def _read_archive(archive: zipfile.ZipFile, size: int, names: Sequence[str]) -> dict[str, Array]:
    members = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
    if names and all(name in members for name in names):
        members = {name: members[name] for name in names}
    unknown = next((name for name, m in members.items() if m.compress_type not in KINDS), None)
    if unknown is not None:
        raise ValueError(f"'{unknown}' is packed in a way that numpy does not use")
    total = sum(member.file_size for member in members.values())
    most = max(MOST_BYTES, MOST_TIMES * size)
    if total > most:
        raise ValueError(f"its arrays take {total >> 20} MB, at most {most >> 20} MB are read")
    found = {}
    for name, member in members.items():
        with archive.open(member) as stream:
            found[name] = _read_array(stream, member.file_size)
    return found


def _read_array(stream: IO[bytes], size: int) -> Array:
    """Return an array, having compared its header with the bytes that there are."""
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"arrays of format {version} are not read")
    shape, _, dtype = _HEADERS[version](stream)
    if math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"its header says {list(shape)} of {dtype}, more than the file has")
    stream.seek(0)
    array: Array = np.lib.format.read_array(stream, allow_pickle=False)
    return array
