"""What sparse and shared weights bring: a file that is smaller once it is compressed."""

import zlib
from collections.abc import Sequence
from pathlib import Path

from edgedl.runtime.bundle.manifest import HistoryEntry
from edgedl.runtime.precision import Precision

PIECE = 1 << 20


def repetition_of(history: Sequence[HistoryEntry], precision: Precision) -> str:
    """Return which values the weights of a file repeat; empty if no stage made them.

    >>> repetition_of([HistoryEntry("sparsify", {"measured_sparsity": 0.5})], INT8)
    '50 % of its weights are zero'
    """
    found = ""
    for entry in history:
        if "measured_sparsity" in entry.settings:
            found = f"{100 * _number(entry, 'measured_sparsity'):.0f} % of its weights are zero"
        # The steps of int8 differ from channel to channel, and so do the integers of one value.
        if "entropy_bits" in entry.settings and precision.is_float:
            shared = entry.settings["entropy_bits"]
            layers = len(shared) if isinstance(shared, tuple) else 0
            values = 2 ** _number(entry, "bits")
            found = f"{layers} of its layers have at most {values:.0f} different weights each"
    return found


def zipped_bytes(path: Path) -> int:
    """Return the size of a file in a zip archive or app package (deflate)."""
    packer, size = zlib.compressobj(9), 0
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            size += len(packer.compress(piece))
    return size + len(packer.flush())


def _number(entry: HistoryEntry, key: str) -> float:
    value = entry.settings[key]
    if not isinstance(value, (int, float)):
        raise TypeError(f"{key} of {entry.stage} is {value!r}, not a number")
    return value
