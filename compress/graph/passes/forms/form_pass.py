"""Passes that write operators under other names, or in other forms, by a table."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import fx

from edgedl.compress.graph.operators.operator import arguments
from edgedl.compress.graph.passes.forms.side_effects import DropSideEffects
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.values import record_value, value_of

Arguments = dict[str, Any]
# Makes the other form of an operator in front of it; None where it has none.
Form = Callable[[fx.GraphModule, fx.Node, Arguments], fx.Node | None]


class FormPass(Pass):
    """Write operators in the form of a table; what has another form takes place and name."""

    requires = (DropSideEffects,)
    takes_name = True
    operators: ClassVar[Mapping[Any, Form]]

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Write one operator in its other form, if it has one."""
        result = self.operators[node.target](module, node, arguments(node))
        if result is not None:
            record_value(result, value_of(node))
        return result
