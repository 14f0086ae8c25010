"""Say when the calibration data cannot be what the network will meet."""

from collections.abc import Iterator

import numpy as np

from edgedl.compress.encodings.encodings import Range
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.graph.edit import input_nodes
from edgedl.runtime.backend import Array
from edgedl.runtime.task.task import Task
from edgedl.runtime.wording import counted

# Fewer calibration samples than this are worth a word.
FEW = 32
LOOKED_AT = 100
# Share of the values of an input that may lie outside what calibration saw.
OUTSIDE = 0.01
# Share of the range that calibration saw, below which test inputs hardly use it.
USED = 0.2


def calibration_warnings(
    network: QuantizedNetwork, task: Task, samples: int | None = None
) -> tuple[str, ...]:
    """Return a sentence for every reason to doubt the table; of the test split only inputs count.

    Reasons: few samples, or all of them alike; an input that never changed; test inputs of which
    more than 1 % of the values lie outside the range that calibration saw, or that all lie in less
    than a fifth of it.

    Args:
        network: with the ranges that were found.
        task: with the data they were found on.
        samples: how many of the calibration split were used at most; None for all.
    """
    warnings = []
    seen = next(iter(task.batches("calibration", LOOKED_AT))).inputs
    count = len(seen[0]) if samples is None else min(samples, len(seen[0]))
    if count < FEW:
        are = "is" if count == 1 else "are"
        only = counted(count, "calibration sample")
        warnings.append(f"there {are} only {only}: ranges may be too narrow")
    if count > 1 and all((x[:count] == x[:1]).all() for x in seen):
        warnings.append(f"the first {count} calibration samples are all the same")
    inputs = next(iter(task.batches("test", LOOKED_AT))).inputs
    for index, (node, x) in enumerate(zip(input_nodes(network.graph), inputs, strict=True)):
        if node.name in network.encodings.activations:
            warnings += _on_range(index, network.encodings.activations[node.name], x)
    return tuple(warnings)


def _on_range(index: int, seen: Range, x: Array) -> Iterator[str]:
    """Compare the values of a test input with the range of the calibration data."""
    if seen.lo == seen.hi:
        yield f"input {index} has one value, {seen.lo:g}, in all calibration data"
        return
    numbers = np.asarray(x, np.float32)
    share = float(np.mean((numbers < seen.lo) | (numbers > seen.hi)))
    used = float(np.ptp(numbers)) / (seen.hi - seen.lo)
    of = f"the range [{seen.lo:.3g}, {seen.hi:.3g}] of the calibration data"
    if share > OUTSIDE:
        found = f"{100 * share:.0f} % of the values of test input {index} are outside {of}"
        yield f"{found}: is their preprocessing the same?"
    elif used < USED:
        found = f"the values of test input {index} use {100 * used:.2g} % of {of}"
        yield f"{found}: is their preprocessing the same?"
