"""What a teacher said about samples that do not change, kept on disk from round to round."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgedl.compress.subject.outputs import as_tuple
from edgedl.compress.training.task_batches import Teacher

Row = npt.NDArray[np.float32]

_KEY_BYTES = 16
_CHECKSUM_BYTES = 8


class AnswerFile:
    """Rows of float32 by key, as records of one length: key, values, checksum.

    A record that is damaged or cut short counts as absent, and is written again.
    """

    def __init__(self, path: Path, values: int, limit_bytes: int) -> None:
        """Open a file, or begin one.

        Args:
            path: in a folder that exists.
            values: length of a row.
            limit_bytes: the file grows no further; what does not fit is not kept.
        """
        self._path, self._limit = path, limit_bytes
        self._record_bytes = _KEY_BYTES + 4 * values + _CHECKSUM_BYTES
        path.touch()
        # A process that was killed may have left half a record: it will be written over.
        whole = path.stat().st_size // self._record_bytes
        self._end = whole * self._record_bytes
        self._places: dict[bytes, int] = {}
        with path.open("rb") as file:
            for place in range(0, self._end, self._record_bytes):
                file.seek(place)
                self._places[file.read(_KEY_BYTES)] = place

    def read(self, keys: Iterable[bytes]) -> dict[bytes, Row]:
        """Return the rows that are kept and whole."""
        found = {}
        with self._path.open("rb") as file:
            for key in keys:
                if key in self._places:
                    file.seek(self._places[key])
                    record = file.read(self._record_bytes)
                    body = record[:-_CHECKSUM_BYTES]
                    if body.startswith(key) and record[-_CHECKSUM_BYTES:] == _checksum(body):
                        found[key] = np.frombuffer(body, np.float32, offset=_KEY_BYTES)
        return found

    def write(self, rows: Mapping[bytes, Row]) -> None:
        """Keep rows, each in place of its damaged record or at the end, while there is room."""
        with self._path.open("r+b") as file:
            for key, row in rows.items():
                place = self._places.get(key, self._end)
                if place + self._record_bytes > self._limit:
                    continue
                body = key + row.tobytes()
                file.seek(place)
                file.write(body + _checksum(body))
                self._places[key] = place
                self._end = max(self._end, place + self._record_bytes)


class RememberingTeacher:
    """A teacher that is asked about every sample once.

    Samples are known by their content, so this is for data that are not augmented: changed at
    random, no sample comes twice.

    An answer is kept as it was computed first. A teacher's kernels may round otherwise in a batch
    of other samples, so that answers are those of a teacher asked anew to float32's precision,
    not to the bit. A run that is resumed reads what it would have remembered.
    """

    def __init__(
        self, teacher: Teacher, examples: tuple[Tensor, ...], path: Path, limit_bytes: int
    ) -> None:
        """Open the file of a teacher's answers.

        Args:
            teacher: returns one tensor or several [B, ...], float32.
            examples: inputs [N, ...] that tell the shapes of its answers.
            path: of the file, which must be of this teacher alone.
            limit_bytes: of the file.
        """
        self._teacher = teacher
        with torch.no_grad():
            self._shapes = [y.shape[1:] for y in as_tuple(teacher(*examples))]
        self._lengths = [shape.numel() for shape in self._shapes]
        self._file = AnswerFile(path, sum(self._lengths), limit_bytes)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the teacher's answers, [B, ...] each."""
        keys = [_key(sample) for sample in zip(*inputs, strict=True)]
        known = self._file.read(keys)
        missing = [i for i, key in enumerate(keys) if key not in known]
        if missing:
            answers = as_tuple(self._teacher(*(x[missing] for x in inputs)))
            rows = torch.cat([y.flatten(1) for y in answers], 1).cpu().numpy()
            new = dict(zip((keys[i] for i in missing), rows, strict=True))
            self._file.write(new)
            known |= new
        table = torch.from_numpy(np.stack([known[key] for key in keys]))
        parts = zip(table.split(self._lengths, 1), self._shapes, strict=True)
        return tuple(part.reshape(len(keys), *shape) for part, shape in parts)


def _key(sample: tuple[Tensor, ...]) -> bytes:
    digest = hashlib.blake2b(digest_size=_KEY_BYTES)
    for x in sample:
        digest.update(f"{x.dtype}{list(x.shape)}".encode())
        digest.update(x.cpu().contiguous().numpy().tobytes())
    return digest.digest()


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES).digest()
