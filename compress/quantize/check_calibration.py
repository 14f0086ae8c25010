"""Say when the calibration data cannot be what the network will meet."""

import itertools

import numpy as np

from edgedl.compress.graph.edit import input_nodes
from edgedl.compress.quantize.network import QuantizedNetwork
from edgedl.runtime.task import Task

# Fewer calibration samples than this are worth a word.
FEW = 32
LOOKED_AT = 100
# Share of the values of an input that may lie outside what calibration saw.
OUTSIDE = 0.01


def calibration_warnings(network: QuantizedNetwork, task: Task) -> tuple[str, ...]:
    """Return a sentence for every reason to doubt the table; of the test split only inputs count.

    Reasons: few samples; an input that never changed; test inputs of which more than 1 % of the
    values lie outside the range that calibration saw.
    """
    warnings = []
    seen = sum(len(b.labels) for b in itertools.islice(task.batches("calibration", FEW), 1))
    if seen < FEW:
        warnings.append(f"there are only {seen} calibration samples: ranges may be too narrow")
    inputs = next(iter(task.batches("test", LOOKED_AT))).inputs
    for index, (node, x) in enumerate(zip(input_nodes(network.graph), inputs, strict=True)):
        if node.name not in network.encodings.activations:
            continue
        values = network.encodings.activations[node.name]
        if values.lo == values.hi:
            warnings.append(f"input {index} has one value, {values.lo:g}, in all calibration data")
            continue
        numbers = np.asarray(x, np.float32)
        share = float(np.mean((numbers < values.lo) | (numbers > values.hi)))
        if share > OUTSIDE:
            warnings.append(
                f"{100 * share:.0f} % of the values of test input {index} lie outside the range "
                f"[{values.lo:.3g}, {values.hi:.3g}] that calibration saw: are both preprocessed "
                "alike?"
            )
    return tuple(warnings)
