"""Read what people point at: files of the network's kind, arrays, a folder, a stream of paths."""

import io
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgedl.runtime.backend import Array
from edgedl.runtime.bundle.array_file import NPY, open_arrays, read_npy_stream
from edgedl.runtime.bundle.manifest import Manifest, TensorSpec
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.preprocess.image import ImagePreprocessing
from edgedl.runtime.preprocess.preprocessing import Preprocessing
from edgedl.runtime.task.video import CAMERA, NETWORK, is_video, read_video
from edgedl.runtime.wording import counted

ARRAYS = (".npy", ".npz")
NO_KIND = "arrays (.npy, .npz)"


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
    kind = manifest.preprocessing
    known = (*ARRAYS, *(kind.suffixes if kind else ()))
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in known and p.is_file())
    if not files:
        raise BadInputError(f"{where} holds no {_takes(kind)}")
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
    suffix, kind = path.suffix.lower(), manifest.preprocessing
    if suffix in ARRAYS:
        return NamedInputs(str(path), _read_arrays(path, manifest))
    if kind is None or suffix not in kind.suffixes:
        raise BadInputError(f"{path}: this network takes {_takes(kind)}, not '{suffix}' files")
    arrays, parts = kind.inputs_of(path)
    if len(arrays) != len(manifest.inputs):
        raise BadInputError(
            f"{path} gives {counted(len(arrays), 'input')}, the network takes "
            f"{len(manifest.inputs)}: give them as an .npz file"
        )
    typed = zip(arrays, manifest.inputs, strict=True)
    return NamedInputs(str(path), tuple(_as_ids(x, spec) for x, spec in typed), parts)


def _as_ids(x: Array, spec: TensorSpec) -> Array:
    """Return integers in the type that the network has its ids in; anything else as it is."""
    wanted = np.dtype(spec.dtype)
    return x.astype(wanted, copy=False) if x.dtype.kind == wanted.kind == "i" else x


def _takes(kind: Preprocessing | None) -> str:
    return f"{kind.takes} or {NO_KIND}" if kind else NO_KIND


def _read_arrays(path: Path, manifest: Manifest) -> tuple[Array, ...]:
    arrays = read_arrays(path, [spec.name for spec in manifest.inputs])
    return tuple(_prepare(x, i, manifest) for i, x in enumerate(arrays))


def read_arrays(path: Path, names: Sequence[str]) -> tuple[Array, ...]:
    """Read one array per input: a .npy for one input, a .npz with one entry per input name.

    Raises:
        BadInputError: the file cannot be read, or holds another number of arrays.
    """
    loaded = open_arrays(path, names)
    known = all(name in loaded for name in names)
    arrays = [loaded[name] for name in (names if known else loaded)]
    if len(arrays) != len(names):
        raise BadInputError(
            f"{path} holds {len(arrays)} arrays, the network takes {len(names)}: {', '.join(names)}"
        )
    return tuple(arrays)


def _prepare(x: Array, index: int, manifest: Manifest) -> Array:
    """Preprocess raw values of the first input; add a missing batch dimension."""
    kind = manifest.preprocessing
    if index == 0 and kind is not None:
        x = kind.from_raw(x)
    return x[None] if x.ndim == len(manifest.inputs[index].shape) - 1 else x
