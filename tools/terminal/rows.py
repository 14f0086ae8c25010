"""Rows of names and texts below one another."""

from collections.abc import Sequence

GAP = 2


def rows(cells: Sequence[Sequence[str]]) -> str:
    """Return one line for each row, in columns.

    Args:
        cells: of every row, all with as many.

    >>> print(rows([("ort", "on CPUs"), ("tflite", "on phones")]))
    ort     on CPUs
    tflite  on phones
    """
    widths = [max(map(len, column)) + GAP for column in zip(*cells, strict=True)]
    return "\n".join(
        "".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
