"""The memory layout in which torch's CPU convolutions are fastest."""

import torch
from torch import Tensor, fx

from edgedl.compress.graph.operators.operator import aten, first_input
from edgedl.compress.graph.values import shape_of

# They read memory as it lies, and raise where that is not in the order of the axes.
_READS_MEMORY = (aten.view.default, aten.as_strided.default)


def in_fast_layout(graph: fx.GraphModule, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return inputs of a graph, pictures [N, C, H, W] with the channels last in memory.

    The values are the same. A graph that reads memory in the order of the axes gets the inputs
    as they are.
    """
    if any(_needs_order(node) for node in graph.graph.nodes):
        return inputs
    return tuple(
        x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for x in inputs
    )


def _needs_order(node: fx.Node) -> bool:
    if node.target not in _READS_MEMORY:
        return False
    # Vectors and maps of one place lie the same way in both layouts.
    shape = shape_of(first_input(node))
    return len(shape) > 2 and any(size != 1 for size in shape[2:])
