"""Operators that change nothing in evaluation."""

from typing import Any

from torch import fx

from edgedl.compress.graph.operators.operator import aten, first_input, operands
from edgedl.compress.graph.passes.forms.arithmetic import ArithmeticForms
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.values import value_of

_NOTHING: frozenset[Any] = frozenset(
    {
        aten.dropout.default,
        aten.feature_dropout.default,
        aten.alpha_dropout.default,
        aten.feature_alpha_dropout.default,
        aten.lift_fresh_copy.default,
        aten.detach.default,
        aten.detach_.default,
        aten.alias.default,
        aten._assert_tensor_metadata.default,
    }
)

# What changes nothing if the type was that already.
_SAME_TYPE: frozenset[Any] = frozenset(
    {aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten.type_as.default}
)


class DropIdentities(Pass):
    """Take operators that change nothing out of the graph.

    Before: ``relu(dropout(x))``. After: ``relu(x)``.
    """

    operators = _NOTHING | _SAME_TYPE
    gone = _NOTHING

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Let the readers of one node read what it reads."""
        source = first_input(node)
        if not isinstance(source, fx.Node):
            return None
        before, after = value_of(source), value_of(node)
        known = before is not None and after is not None
        if node.target in _SAME_TYPE and not (known and before.dtype == after.dtype):
            return None
        return source


class DropNeutral(Pass):
    """Take products with 1 and sums with 0 out of the graph; of an input they stay.

    Before: ``relu(sigmoid(x) * 1.0)``. After: ``relu(sigmoid(x))``. LiteRT's converter drops them
    itself, and the grids of the two sides meet.
    """

    requires = (ArithmeticForms,)
    operators = frozenset({aten.mul.Tensor, aten.add.Tensor})

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Let the readers of one node read its operand."""
        source, number = operands(node)
        neutral = 1 if node.target is aten.mul.Tensor else 0
        if not isinstance(source, fx.Node) or not isinstance(number, (int, float)):
            return None
        before, after = value_of(source), value_of(node)
        if number != neutral or source.op == "placeholder" or before is None or after is None:
            return None
        return source if before.dtype == after.dtype else None
