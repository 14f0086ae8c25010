"""ReLUs of their own in int8 as operators that XNNPACK has, in a converted TFLite file.

One that is folded into the operator before it costs nothing. One that stands alone, since others
read what it reads, is computed outside XNNPACK, by a kernel that takes longer than the convolutions
around it.
"""

import math
from typing import Any

import numpy as np

from edgedl.compress.export.tflite.file import TfliteFile

BOUNDS = {
    "RELU": (0.0, math.inf),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU_0_TO_1": (0.0, 1.0),
}
# Of the operators that take int8.
VERSION = 2
LOWEST, HIGHEST = -128, 127


def clip_in_xnnpack(model: bytes) -> bytes:
    """Return a model whose int8 ReLUs are ``QUANTIZE``, ``MAXIMUM`` and ``MINIMUM``.

    From a grid to one that ends within the bounds, ``QUANTIZE`` clips. A model without such a ReLU
    comes back as it is.
    """
    file = TfliteFile(model)
    found = [(op, bounds) for kind, bounds in BOUNDS.items() for op in file.operators(kind)]
    int8 = file.schema.TensorType.INT8
    taken = [(op, b) for op, b in found if file.graph.tensors[op.outputs[0]].type == int8]
    for operator, bounds in taken:
        _replace(file, operator, bounds)
    return file.pack() if taken else model


def _replace(file: TfliteFile, operator: Any, bounds: tuple[float, float]) -> None:
    source, result = int(operator.inputs[0]), int(operator.outputs[0])
    lowest, highest = _ends(file.graph.tensors[result].quantization, bounds)
    # Kind of operator, and the integer that it takes beside the value.
    kinds: list[tuple[str, int | None]] = []
    if lowest > LOWEST:
        kinds.append(("MAXIMUM", lowest))
    if highest < HIGHEST:
        kinds.append(("MINIMUM", highest))
    if not file.same_grid(source, result) or not kinds:
        kinds.insert(0, ("QUANTIZE", None))
    place = file.graph.operators.index(operator)
    file.remove([operator])
    for step, (kind, integer) in enumerate(kinds):
        last = step == len(kinds) - 1
        output = result if last else file.add_tensor(result, file.shape(result), f"_{step}")
        inputs = [source]
        if integer is not None:
            content = np.int8(integer).tobytes()
            inputs.append(file.add_constant(result, content, f"_{kind.lower()}", [1]))
        made = file.insert(place + step, kind, VERSION, inputs, [output])
        options = "QuantizeOptions" if integer is None else "MaximumMinimumOptions"
        made.builtinOptionsType = getattr(file.schema.BuiltinOptions, options)
        made.builtinOptions = getattr(file.schema, f"{options}T")()
        source = output


def _ends(grid: Any, bounds: tuple[float, float]) -> tuple[int, int]:
    """Return the integers at the bounds, or at the ends of the grid where it ends within them."""
    scale, zero = float(grid.scale[0]), int(grid.zeroPoint[0])
    lowest, highest = (
        b if math.isinf(b) else min(max(round(b / scale) + zero, LOWEST), HIGHEST) for b in bounds
    )
    return int(max(lowest, LOWEST)), int(min(highest, HIGHEST))
