"""Read what people point at: a picture, a CSV file, an array file, a folder, a stream of paths."""

import io
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgedl.runtime.backend import Array
from edgedl.runtime.bundle.array_file import NPY, load_arrays, read_npy_stream
from edgedl.runtime.bundle.manifest import Manifest
from edgedl.runtime.bundle.preprocess import ImagePreprocessing
from edgedl.runtime.bundle.sequence import SequencePreprocessing
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.video import CAMERA, NETWORK, is_video, read_video

ARRAYS = {".npy", ".npz"}
TABLES = {".csv"}
PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


@dataclass(frozen=True)
class NamedInputs:
    """The network's inputs read from one place.

    Attributes:
        source: where they were read.
        arrays: float32 [N, ...] each.
        parts: what each of the N samples is of the source; empty where they are only counted.
    """

    source: str
    arrays: tuple[Array, ...]
    parts: tuple[str, ...] = ()

    def name(self, index: int) -> str:
        """Return what to call a sample."""
        if self.parts:
            return f"{self.source} {self.parts[index]}"
        return self.source if len(self.arrays[0]) == 1 else f"{self.source}[{index}]"


def read_inputs(where: str, manifest: Manifest) -> Iterator[NamedInputs]:
    """Yield the inputs of a file, of every file in a folder (sorted), or of what comes on stdin.

    Args:
        where: a file, a folder, a video, a camera ("camera:0"), the address of a stream, or "-" for
            stdin: a path in each line, or arrays as .npy, one behind the other.
        manifest: of the bundle that takes them.

    Raises:
        BadInputError: nothing to read, or a file that is no input of this network.
        BackendUnavailableError: there is no such camera, or no library that reads it.
    """
    if where == "-":
        yield from _read_stdin(manifest)
        return
    path = Path(where)
    if is_video(where):
        yield from _read_video(where, manifest)
        return
    if not path.exists():
        raise BadInputError(f"there is no file or folder '{where}'")
    if path.is_file():
        yield _read(path, manifest)
        return
    known = ARRAYS | PICTURES | TABLES
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in known and p.is_file())
    if not files:
        raise BadInputError(f"{where} holds no picture, no .csv and no array (.npy, .npz)")
    for file in files:
        yield _read(file, manifest)


def _read_stdin(manifest: Manifest) -> Iterator[NamedInputs]:
    """Yield what every path names, or every array; it ends where stdin is closed."""
    stream = _stdin()
    if stream is not None and stream.peek(len(NPY))[: len(NPY)] == NPY:
        for number, array in enumerate(read_npy_stream(stream)):
            yield NamedInputs(f"stdin {number}", (_prepare(array, 0, manifest),))
        return
    lines = sys.stdin if stream is None else io.TextIOWrapper(stream, errors="surrogateescape")
    for line in lines:
        if line.strip():
            yield _read(Path(line.strip()), manifest)


def _stdin() -> io.BufferedReader | None:
    """Return stdin as bytes; None where it is text that somebody has put there.

    It is a stream of its own: the interpreter cannot end while a thread reads its own one.
    """
    try:
        return io.BufferedReader(io.FileIO(os.dup(sys.stdin.fileno())))
    except (AttributeError, OSError, ValueError):
        return getattr(sys.stdin, "buffer", None)


def _read_video(where: str, manifest: Manifest) -> Iterator[NamedInputs]:
    pictures = manifest.preprocessing
    if not isinstance(pictures, ImagePreprocessing):
        raise BadInputError(f"{where}: this network takes no pictures")
    if not where.startswith((CAMERA, *NETWORK)) and not Path(where).is_file():
        raise BadInputError(f"there is no file '{where}'")
    for number, pixels in enumerate(read_video(where)):
        yield NamedInputs(f"{where} {number}", (pictures(pictures.fit(pixels)),))


def _read(path: Path, manifest: Manifest) -> NamedInputs:
    if not path.is_file():
        raise BadInputError(f"there is no file '{path}'")
    suffix = path.suffix.lower()
    if suffix in ARRAYS:
        return NamedInputs(str(path), _read_arrays(path, manifest))
    if suffix in TABLES:
        return _read_table(path, manifest)
    if not isinstance(manifest.preprocessing, ImagePreprocessing):
        takes = "CSV files" if manifest.preprocessing else "arrays (.npy, .npz)"
        kind = "pictures" if suffix in PICTURES else f"'{suffix}' files"
        raise BadInputError(f"{path}: this network takes {takes}, not {kind}")
    pixels = manifest.preprocessing.read(path)
    return NamedInputs(str(path), (manifest.preprocessing(pixels),))


def _read_table(path: Path, manifest: Manifest) -> NamedInputs:
    cut = manifest.preprocessing
    if not isinstance(cut, SequencePreprocessing):
        takes = "pictures" if cut else "arrays (.npy, .npz)"
        raise BadInputError(f"{path}: this network takes {takes}, not CSV files")
    rows = cut.read(path)
    windows = cut.windows(rows)
    length = windows.shape[1]
    starts = [i * cut.hop for i in range(len(windows))]
    parts = tuple(f"rows {start + 1} to {start + length}" for start in starts)
    return NamedInputs(str(path), (windows,), parts)


def _read_arrays(path: Path, manifest: Manifest) -> tuple[Array, ...]:
    arrays = read_arrays(path, [spec.name for spec in manifest.inputs])
    return tuple(_prepare(x, i, manifest) for i, x in enumerate(arrays))


def read_arrays(path: Path, names: Sequence[str]) -> tuple[Array, ...]:
    """Read one array per input: a .npy for one input, a .npz with one entry per input name.

    Raises:
        BadInputError: the file cannot be read, or holds another number of arrays.
    """
    try:
        loaded = load_arrays(path, names)
        if isinstance(loaded, dict):
            known = all(name in loaded for name in names)
            arrays = [loaded[name] for name in (names if known else loaded)]
        else:
            arrays = [loaded]
    except Exception as error:
        # A damaged array file raises anything from MemoryError to tokenize.TokenError.
        reason = " ".join(str(error).split())
        raise BadInputError(f"{path} is not a readable array file ({reason})") from error
    if len(arrays) != len(names):
        raise BadInputError(
            f"{path} holds {len(arrays)} arrays, the network takes {len(names)}: {', '.join(names)}"
        )
    return tuple(arrays)


def _prepare(x: Array, index: int, manifest: Manifest) -> Array:
    """Preprocess raw uint8 pictures [(N,) H, W, C]; add a missing batch dimension."""
    pictures = manifest.preprocessing
    if index == 0 and isinstance(pictures, ImagePreprocessing) and x.dtype == np.uint8:
        return pictures(np.asarray(x[None] if x.ndim == 3 else x, np.uint8))
    return x[None] if x.ndim == len(manifest.inputs[index].shape) - 1 else x
