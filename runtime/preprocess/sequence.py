"""Sensor sequences as data: which columns of a CSV file become the network's input, and how."""

import csv
from pathlib import Path
from typing import ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.preprocess.reading import Array, Reading


class SequencePreprocessing(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="sequence"
):
    """Turns rows of sensor values into windows, float32 [N, T, C].

    Attributes:
        columns: names of the C channels, in the network's order.
        window: rows of a window, T.
        hop: rows from the start of one window to the start of the next.
        rate_hz: rows per second the network was trained on.
    """

    columns: tuple[str, ...]
    window: int
    hop: int
    rate_hz: float

    takes: ClassVar[str] = "CSV files"
    suffixes: ClassVar[tuple[str, ...]] = (".csv",)

    def __post_init__(self) -> None:
        """Reject sizes that cannot be applied."""
        if not self.columns or len(set(self.columns)) != len(self.columns):
            raise BadInputError(f"columns must be different names, got {list(self.columns)}")
        if self.window < 1 or self.hop < 1 or not 0 < self.rate_hz < np.inf:
            raise BadInputError(
                f"window, hop and rate_hz must be above 0, got {self.window}, {self.hop}, "
                f"{self.rate_hz}"
            )

    def inputs_of(self, path: Path) -> Reading:
        """Read the windows of a CSV file.

        Raises:
            BadInputError: as ``read``.
        """
        windows = self.windows(self.read(path))
        length = windows.shape[1]
        starts = [i * self.hop for i in range(len(windows))]
        return Reading((windows,), tuple(f"rows {i + 1} to {i + length}" for i in starts))

    def from_raw(self, x: Array) -> Array:
        """Return windows as they are."""
        return x

    def windows(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Cut rows [R, C] into windows [N, T, C]; rows behind the last whole window are left out.

        Fewer rows than a window give one shorter window [1, R, C].

        >>> p = SequencePreprocessing(("x",), window=4, hop=2, rate_hz=50.0)
        >>> p.windows(np.zeros((9, 1), np.float32)).shape
        (3, 4, 1)
        """
        if len(rows) <= self.window:
            return rows[None]
        starts = range(0, len(rows) - self.window + 1, self.hop)
        return np.stack([rows[start : start + self.window] for start in starts])

    def read(self, path: Path) -> npt.NDArray[np.float32]:
        """Read a CSV file with a header line -> float32 [R, C]; other columns are ignored.

        Raises:
            BadInputError: a column is missing, a value is no finite number, or there are no rows.
        """
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.reader(file, skipinitialspace=True)
                header = [cell.strip() for cell in next((row for row in reader if row), [])]
                places = self._places(path, header)
                rows = [
                    self._values(f"{path}, line {reader.line_num}", row, len(header), places)
                    for row in reader
                    if row
                ]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise BadInputError(f"{path} is not a readable CSV file ({error})") from error
        if not rows:
            raise BadInputError(f"{path} is an empty sequence: it has a header but no rows")
        return np.asarray(rows, np.float32)

    def _places(self, path: Path, header: list[str]) -> list[int]:
        """Return where in a row the network's columns stand."""
        if not header:
            raise BadInputError(f"{path} is empty: its first line must name the columns")
        missing = [repr(name) for name in self.columns if name not in header]
        if missing:
            shown = ", ".join(_shorten(cell) for cell in header[:20])
            raise BadInputError(
                f"{path} has no column {', '.join(missing)}: the network takes "
                f"{', '.join(self.columns)}; the file has {shown}"
            )
        for name in self.columns:
            if header.count(name) > 1:
                raise BadInputError(f"{path} has {header.count(name)} columns {name!r}")
        return [header.index(name) for name in self.columns]

    def _values(self, where: str, row: list[str], width: int, places: list[int]) -> list[float]:
        if len(row) != width:
            raise BadInputError(f"{where} has {len(row)} cells, the header has {width}")
        values = [_number(row[place]) for place in places]
        for name, place, value in zip(self.columns, places, values, strict=True):
            if not np.isfinite(value):
                raise BadInputError(
                    f"{where}: '{name}' is {_shorten(row[place])}, expected a finite number"
                )
        return values


def _number(text: str) -> float:
    """Return the float32 number a cell holds, NaN if none; Python's own spellings do not count."""
    try:
        value = float(text) if text.isascii() and "_" not in text else float("nan")
    except ValueError:
        return float("nan")
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
