"""The operator matrix as a page of documentation."""

import re
from collections import Counter
from collections.abc import Sequence

from benchmarks.operators.matrix import ARTIFACTS, COLUMNS, Cell, Row
from edgedl.compress.targets.target import load_target
from edgedl.runtime.measure.device import RunContext
from edgedl.tools.report.table import to_markdown

INTRODUCTION = """# Operators

What each runtime makes of each operator. Every row is a small network with that operator between
two layers, compressed for every target; every file was run by its runtime and held against the
torch graph, here by {runtimes} on {cpu}. TensorRT's files were checked by {tensorrt}.
This page is written by `python -m benchmarks.operators.run --out docs/operators.md`;
`edgedl operators` says without a run what edgedl knows of each operator.

- **yes**: the file is there, and right; an int8 file computes it in integers.
- **float: X**: the file is there, and right, and computes X in float.
- **accepted**: the file is there, and TensorRT's checker takes it; no GPU has run it, so which of
  its kernels compute in integers is not known.
- **no**: there is no such file; the number is the reason's, below the tables.

What a precision is: [quantization](quantization.md); weights alone in integers compute in float.
"""


def render_page(rows: Sequence[Row], context: RunContext, tensorrt: str) -> str:
    """Return the page.

    Args:
        rows: of ``support_matrix``.
        context: the machine and the runtimes that ran the files.
        tensorrt: what stood in for TensorRT.
    """
    reasons: list[str] = []
    packages = context.packages.items()
    runtimes = " and ".join(f"{name} {version}" for name, version in packages if name != "numpy")
    introduction = INTRODUCTION.format(runtimes=runtimes, cpu=context.cpu, tensorrt=tensorrt)
    parts = [introduction, _counts(rows)]
    for target, columns in COLUMNS.items():
        precisions = [name.removeprefix(f"{target}-") for name in columns]
        lines = [
            [row.family, row.operator, *(_text(row.cells[name], reasons) for name in columns)]
            for row in rows
        ]
        table = to_markdown(["family", "operator", *precisions], lines)
        parts.append(f"## {target}\n\n{_refused(target)}{table}\n")
    listed = "\n".join(f"{n}. {reason}" for n, reason in enumerate(reasons, start=1))
    parts.append(f"## Reasons\n\n{listed or 'Nothing was refused.'}\n")
    return "\n".join(parts)


def _refused(target: str) -> str:
    """Return the precisions that a target has no files of."""
    refused = load_target(target).refused
    return "".join(f"- no {precision}: {why}\n" for precision, why in refused.items()) + "\n"


def _counts(rows: Sequence[Row]) -> str:
    lines = []
    for name in ARTIFACTS:
        found = Counter(row.cells[name].outcome for row in rows)
        lines.append([name, *(str(found[o]) for o in ("runs", "partly", "accepted", "refused"))])
    table = to_markdown(["file", "yes", "float", "accepted", "no"], lines)
    return f"{len(rows)} operators:\n\n{table}\n"


def _text(cell: Cell, reasons: list[str]) -> str:
    if cell.outcome == "runs":
        return "yes"
    if cell.outcome == "accepted":
        return "accepted"
    if cell.outcome == "partly":
        return f"float: {cell.detail}"
    # In one line, and without where this machine keeps its packages.
    reason = re.sub(r"\S*/site-packages/", "", " ".join(cell.detail.split()))
    if reason not in reasons:
        reasons.append(reason)
    return f"no ({reasons.index(reason) + 1})"
