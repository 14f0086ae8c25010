"""Splits that were read once and are kept, as far as there is memory for them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]

# Of the memory that is free when a split is read: what all kept splits may take together.
SHARE_OF_FREE = 1 / 4
# What they may take where the system does not say how much is free.
USUAL_BYTES = 2**30


class Samples(NamedTuple):
    """A whole split: inputs, each [N, ...] (uint8 pictures [N, H, W, C] or arrays), and labels."""

    inputs: tuple[Array, ...]
    labels: Array

    @property
    def size_bytes(self) -> int:
        """Return the memory that the arrays take."""
        return sum(array.nbytes for array in (*self.inputs, self.labels))


class KeptSplits:
    """The splits of one task that this process has read.

    A split is kept if all kept ones together take at most a quarter of the free memory; a larger
    one is read anew every time.
    """

    def __init__(self) -> None:
        """Keep nothing yet."""
        self._kept: dict[str, Samples] = {}

    def get(self, split: str, read: Callable[[], Samples]) -> Samples:
        """Return a split; ``read`` is called where it is not kept."""
        if split in self._kept:
            return self._kept[split]
        samples = read()
        taken = sum(kept.size_bytes for kept in self._kept.values())
        if taken + samples.size_bytes <= SHARE_OF_FREE * (free_bytes() + taken):
            self._kept[split] = samples
        return samples


def free_bytes() -> float:
    """Return the memory that programs could take now, in bytes; as if 4 GiB where none says."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(x.split()[1]) * 1024.0 for x in lines if x.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        pass
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return USUAL_BYTES / SHARE_OF_FREE
