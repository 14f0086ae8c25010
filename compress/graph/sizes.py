"""Sizes in the shapes of a traced graph, where the batch is a symbol."""

import math
from typing import Any

from torch import fx

from edgedl.compress.graph.values import shape_of

# Stands for a free batch size: a prime, so that products of it with other sizes are told apart.
BATCH = 4093


def size_of(dimension: Any) -> int:
    """Return a size; a free one is computed from the batch of ``BATCH``."""
    if isinstance(dimension, int):
        return dimension
    expression = dimension.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, BATCH)))


def of_one_sample(count: int) -> int:
    """Return a count without its factor of the batch; what has none is computed once for all."""
    return count // BATCH if count % BATCH == 0 else count


def places_of(node: fx.Node, channel_axis: int) -> int:
    """Return at how many places of one sample a value has its channels.

    The batch may be any axis, or a factor of one, as behind a reshape to [N * T, C].
    """
    sizes = [size_of(size) for size in shape_of(node)]
    del sizes[channel_axis]
    return of_one_sample(math.prod(sizes))
