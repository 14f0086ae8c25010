"""Sizes in the shapes of a traced graph, where the batch is a symbol."""

from typing import Any

# Stands for a free batch size: a prime, so that products of it with other sizes are told apart.
BATCH = 4093


def size_of(dimension: Any) -> int:
    """Return a size; a free one is computed from the batch of ``BATCH``."""
    if isinstance(dimension, int):
        return dimension
    expression = dimension.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, BATCH)))
