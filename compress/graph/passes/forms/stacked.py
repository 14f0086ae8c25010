"""Maxima over tensors that were stacked for that."""

from typing import Any

from torch import fx

from edgedl.compress.graph.edit import inserter
from edgedl.compress.graph.operators.operator import argument, aten, first_input
from edgedl.compress.graph.passes.forms.joins import JoinForms
from edgedl.compress.graph.passes.forms.maxima import MaximaAlone
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.values import shape_of


class StackedMaximum(Pass):
    """Write the maximum over a stack as maxima of two: nothing is copied, and nothing is moved.

    OpenVINO's integers of the stack are wrong where some are negative.

    Before: ``amax(cat([unsqueeze(x, 1), unsqueeze(y, 1)], 1), [1])``. After: ``maximum(x, y)``.
    """

    requires = (JoinForms, MaximaAlone)
    operators = frozenset({aten.amax.default})
    takes_name = True

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Rewrite one maximum over nothing but the axis of a stack."""
        stack, axes = first_input(node), list(argument(node, "dim"))
        if len(axes) != 1 or not isinstance(stack, fx.Node) or stack.target != aten.cat.default:
            return None
        rank = len(shape_of(stack))
        axis = axes[0] % rank
        parts = [_stacked(part, axis, rank) for part in argument(stack, "tensors")]
        if argument(stack, "dim") % rank != axis or None in parts:
            return None
        insert = inserter(module, node)
        result: Any = parts[0]
        for part in parts[1:]:
            result = insert(aten.maximum.default, result, part)
        return insert(aten.unsqueeze.default, result, axis) if argument(node, "keepdim") else result


def _stacked(part: Any, axis: int, rank: int) -> Any:
    """Return what was given an axis to be stacked along; None if it was another."""
    if not isinstance(part, fx.Node) or part.target is not aten.unsqueeze.default:
        return None
    return first_input(part) if argument(part, "dim") % rank == axis else None
