"""Tables in CSV files: columns of numbers are features, one column is what is predicted."""

import csv
import math
from pathlib import Path

import numpy as np

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.kept_splits import Array
from edgedl.runtime.task.sources.division import divide
from edgedl.runtime.task.sources.reference import DataReference
from edgedl.runtime.task.sources.source import ArraySplit, Source
from edgedl.runtime.wording import counted, meant

OPTIONS = ("target", "drop", "gaps", "classes")
# Longest table in bytes.
LONGEST = 2_000_000_000


def table(reference: DataReference) -> Source:
    """Read a CSV file with a header: features float32 [N, F], in the order of the columns.

    A target of text is classes; of numbers it is a value, or classes with ``classes=yes``. Rows
    that are equal are in one split.

    Raises:
        BadInputError: it is no such file, there is no such column, a feature is no number, or a
            value is missing.
    """
    header, rows = _read(reference.path)
    target = reference.options.get("target")
    dropped = tuple(filter(None, reference.options.get("drop", "").split(",")))
    for name in (*dropped, *([target] if target else [])):
        if name not in header:
            raise BadInputError(
                f"{reference.path} has no column '{name}'{meant(name, header)}; it has "
                f"{', '.join(header)}"
            )
    notes = []
    if reference.choice("gaps", "refuse", ("refuse", "drop")) == "drop":
        whole = [row for row in rows if all(value.strip() for value in row[1])]
        if len(whole) < len(rows):
            notes.append(f"{counted(len(rows) - len(whole), 'row')} with gaps were left out")
        rows = whole
    names = [name for name in header if name != target and name not in dropped]
    if not names:
        raise BadInputError(f"{reference.path} has no column of features beside '{target}'")
    if not rows:
        raise BadInputError(f"{reference.path} has no rows without gaps")
    features = np.stack([_numbers(reference.path, header, rows, n) for n in names], axis=1)
    labels: Array | None = None
    classes: tuple[str, ...] = ()
    if target:
        named = reference.choice("classes", "no", ("yes", "no")) == "yes"
        labels, classes = _target(reference.path, header, rows, target, named)
        kind = f"{len(classes)} classes" if classes else "a number"
        notes.append(f"'{target}' is predicted, {kind}, from {counted(len(names), 'column')}")
    parts = divide(
        [tuple(row) for row in features.tolist()],
        labels.tolist() if labels is not None and classes else None,
    )
    splits = {s: ArraySplit.rows([features], labels, chosen) for s, chosen in parts.items()}
    return Source(reference.path.stem, splits, classes, None, tuple(notes))


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header, and the number and the values of every row."""
    try:
        if path.stat().st_size > LONGEST:
            raise BadInputError(f"{path} has more than {LONGEST // 10**9} GB")
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            header = [name.strip() for name in next(lines, [])]
            rows = [(lines.line_num, row) for row in lines if any(v.strip() for v in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"{path} is not a readable CSV file ({error})") from error
    if len(header) < 1 or not rows:
        raise BadInputError(f"{path} has no rows under a header")
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise BadInputError(f"{path} has two columns '{twice}'")
    for number, row in rows:
        if len(row) != len(header):
            raise BadInputError(
                f"{path}, line {number}, has {len(row)} values, the header has {len(header)}"
            )
    return header, rows


def _numbers(path: Path, header: list[str], rows: list[tuple[int, list[str]]], name: str) -> Array:
    column = header.index(name)
    values = np.empty(len(rows), np.float32)
    for i, (number, row) in enumerate(rows):
        text = row[column].strip()
        where = f"column '{name}' of {path}, line {number}"
        if not text:
            raise BadInputError(f"{where}, is empty: fill it, or leave such rows out, gaps=drop")
        try:
            value = float(text)
        except ValueError as error:
            raise BadInputError(
                f"{where}, is '{text}', no number: encode it, or leave the column out, drop={name}"
            ) from error
        if not math.isfinite(value) or abs(value) > np.finfo(np.float32).max:
            raise BadInputError(f"{where}, is {text}: it must be a finite number")
        values[i] = value
    return values


def _target(
    path: Path, header: list[str], rows: list[tuple[int, list[str]]], name: str, named: bool
) -> tuple[Array, tuple[str, ...]]:
    """Return labels int64 [N] and classes, or values float32 [N, 1]."""
    column = header.index(name)
    texts = [row[column].strip() for _, row in rows]
    if not all(texts):
        number = next(n for (n, row) in rows if not row[column].strip())
        raise BadInputError(
            f"column '{name}' of {path}, line {number}, is empty: fill it, or leave such rows out, "
            "gaps=drop"
        )
    if not named and _is_number(texts[0]):
        return _numbers(path, header, rows, name)[:, None], ()
    classes = sorted(set(texts), key=_order)
    if len(classes) < 2:
        raise BadInputError(f"column '{name}' of {path} has one class alone, '{classes[0]}'")
    places = {text: i for i, text in enumerate(classes)}
    return np.asarray([places[text] for text in texts], np.int64), tuple(classes)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _order(text: str) -> tuple[int, float, str]:
    """Return what sorts numbers by value, in front of text."""
    return (0, float(text), text) if _is_number(text) else (1, 0.0, text)
