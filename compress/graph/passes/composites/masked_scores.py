"""Scores of which a mask hides some from a softmax."""

from typing import Any

from torch import fx

from edgedl.compress.graph.edit import constant_of, inserter, tensor_of
from edgedl.compress.graph.operators.elementwise import MASKED_BELOW
from edgedl.compress.graph.operators.operator import argument, aten
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.values import shape_of

# Beside a score this low any other takes all that softmax gives.
HIDDEN = -1e9
_FILLING: frozenset[Any] = frozenset({aten.masked_fill.Scalar, aten.masked_fill.Tensor})


class OpenMaskedScores(Pass):
    """Write scores that a number hides in places from a softmax as a sum with a mask.

    TFLite's converter would round the number with the scores.

    Before: ``softmax(masked_fill(x, mask, -inf))``.
    After: ``softmax(add(x, where(mask, -1e9, 0)))``.
    """

    operators = _FILLING | {aten.where.self, aten.where.ScalarSelf, aten.where.ScalarOther}

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Write one choice between scores and a number as a sum."""
        if any(user.target is not aten.softmax.int for user in node.users):
            return None
        # The mask, what stands where it is true, and what where it is false.
        fills = node.target in _FILLING
        names = ("mask", "value", "self") if fills else ("condition", "self", "other")
        mask, first, second = (argument(node, name) for name in names)
        numbers = [_number(module, value) for value in (first, second)]
        hidden = next((n for n in numbers if n is not None), 0.0)
        scores = second if numbers[0] is not None else first
        if hidden > MASKED_BELOW or not isinstance(scores, fx.Node):
            return None
        if tensor_of(module, scores).shape != shape_of(node):
            return None
        values = [0.0 if n is None else max(n, HIDDEN) for n in numbers]
        insert = inserter(module, node)
        return insert(aten.add.Tensor, scores, insert(aten.where.Scalar, mask, *values))


def _number(module: fx.GraphModule, value: Any) -> float | None:
    """Return a number, or what a stored tensor of one number is; None for anything else."""
    stored = constant_of(module, value)
    if stored is not None:
        return float(stored) if stored.numel() == 1 else None
    return float(value) if isinstance(value, (int, float)) else None
