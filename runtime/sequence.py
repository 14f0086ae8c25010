"""Sensor sequences as data: which columns of a CSV file become the network's input, and how."""

import csv
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from edgedl.runtime.errors import BadInputError


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

    def __post_init__(self) -> None:
        """Reject sizes that cannot be applied."""
        if not self.columns or len(set(self.columns)) != len(self.columns):
            raise BadInputError(f"columns must be different names, got {list(self.columns)}")
        if self.window < 1 or self.hop < 1 or not self.rate_hz > 0:
            raise BadInputError(
                f"window, hop and rate_hz must be above 0, got {self.window}, {self.hop}, "
                f"{self.rate_hz}"
            )

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
                reader = csv.DictReader(file, skipinitialspace=True)
                self._check_header(path, reader.fieldnames)
                rows = [self._values(path, reader.line_num, record) for record in reader]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise BadInputError(f"{path} is not a readable CSV file ({error})") from error
        if not rows:
            raise BadInputError(f"{path} is an empty sequence: it has a header but no rows")
        return np.asarray(rows, np.float32)

    def _check_header(self, path: Path, found: "Sequence[str] | None") -> None:
        if not found:
            raise BadInputError(f"{path} is empty: its first line must name the columns")
        missing = [name for name in self.columns if name not in found]
        if missing:
            raise BadInputError(
                f"{path} has no column {', '.join(repr(m) for m in missing)}: the network takes "
                f"{', '.join(self.columns)}; the file has {', '.join(found[:20])}"
            )

    def _values(self, path: Path, line: int, record: "dict[str, str | None]") -> list[float]:
        values = []
        for name in self.columns:
            text = record[name]
            try:
                value = float(text) if text is not None else float("nan")
            except ValueError:
                value = float("nan")
            if not np.isfinite(np.float32(value)):
                shown = "missing" if text is None else repr(text)
                raise BadInputError(
                    f"{path}, line {line}: '{name}' is {shown}, expected a finite number"
                )
            values.append(value)
        return values
