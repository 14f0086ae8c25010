"""Damaged bundles: bytes of every kind of file changed, cut off, added or moved, at random."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from edgedl.runtime.bundle.seal import DIGEST, MANIFEST, SIGNATURE, write_sealed

Change = Literal["flip", "cut", "grow", "zero", "move", "repeat"]
CHANGES: tuple[Change, ...] = ("flip", "cut", "grow", "zero", "move", "repeat")
MOST_FLIPS, LONGEST = 16, 256


@dataclass(frozen=True)
class Mutant:
    """One damaged bundle.

    Attributes:
        seed: that it is made of again.
        path: of the file that is damaged.
        change: what happens to it.
        consistent: whether sizes and checksums are made to fit afterwards, as somebody would do
            who wants it to be run.
    """

    seed: int
    path: str
    change: Change
    consistent: bool

    @classmethod
    def of(cls, seed: int, paths: list[str]) -> "Mutant":
        """Return the mutant of a seed."""
        rng = np.random.default_rng(seed)
        path = paths[int(rng.integers(len(paths)))]
        change = CHANGES[int(rng.integers(len(CHANGES)))]
        return cls(seed, path, change, bool(rng.integers(2)))

    def damage(self, folder: Path) -> bool:
        """Damage a copy of the bundle; say whether any byte differs."""
        path = folder / self.path
        before = path.read_bytes()
        after = changed(before, self.change, np.random.default_rng([self.seed, 1]))
        path.write_bytes(after)
        if self.consistent and after != before:
            self._make_fit(folder, after)
        return after != before

    def _make_fit(self, folder: Path, content: bytes) -> None:
        if self.path in (DIGEST, SIGNATURE):
            return
        if self.path == MANIFEST:
            write_sealed(folder, content)
            return
        manifest = json.loads((folder / MANIFEST).read_text())
        record = manifest["files"][self.path]
        record.update(size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        write_sealed(folder, json.dumps(manifest, indent=2).encode())


def changed(content: bytes, change: Change, rng: np.random.Generator) -> bytes:
    """Return a damaged copy of some bytes."""
    data = bytearray(content)
    size = len(data)
    start = int(rng.integers(max(1, size)))
    length = int(rng.integers(1, LONGEST))
    if change == "flip":
        for _ in range(int(rng.integers(1, MOST_FLIPS))):
            data[int(rng.integers(size))] ^= 1 << int(rng.integers(8))
    elif change == "cut":
        del data[start:]
    elif change == "grow":
        data[start:start] = rng.bytes(length)
    elif change == "zero":
        data[start : start + length] = bytes(len(data[start : start + length]))
    elif change == "move":
        piece = data[start : start + length]
        del data[start : start + length]
        place = int(rng.integers(len(data) + 1))
        data[place:place] = piece
    else:
        data[start:start] = data[start : start + length]
    return bytes(data)
