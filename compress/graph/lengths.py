"""Axes whose size may differ from call to call, besides the batch: the time of a sequence.

torch.export fixes such an axis wherever an operator loops over it (every recurrent one), while
the graph it gives computes any length all the same. That is checked here by computing.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from edgedl.compress.subject.outputs import as_tuple


def shortened(inputs: Sequence[Tensor], free_axes: Sequence[int]) -> tuple[Tensor, ...]:
    """Return the inputs with every free axis but the batch cut to half its size, at least 1."""
    cut = []
    for x in inputs:
        for axis in free_axes:
            if axis:
                x = x.narrow(axis, 0, max(1, x.shape[axis] // 2))
        cut.append(x.contiguous())
    return tuple(cut)


def free_output_axes(
    graph: fx.GraphModule, inputs: Sequence[Tensor], free_axes: Sequence[int]
) -> list[tuple[int, ...]]:
    """Return, for every output, the axes whose size follows the inputs' free axes."""
    with torch.no_grad():
        long = as_tuple(graph(*inputs))
        short = as_tuple(graph(*shortened(inputs, free_axes)))
    return [
        (0, *(axis for axis in range(1, a.ndim) if a.shape[axis] != b.shape[axis]))
        for a, b in zip(long, short, strict=True)
    ]
