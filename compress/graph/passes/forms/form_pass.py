"""Passes that write operators under other names, or in other forms, by a table."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import fx

from edgedl.compress.graph.edit import insert_shaped_call
from edgedl.compress.graph.passes.forms.side_effects import DropSideEffects
from edgedl.compress.graph.passes.graph_pass import Pass

Arguments = dict[str, Any]
Insert = Callable[..., fx.Node]
# Makes the other form of an operator in front of it; None where it has none.
Form = Callable[[fx.GraphModule, fx.Node, Arguments], fx.Node | None]


class FormPass(Pass):
    """Write operators in the form of a table; what has another form takes place and name."""

    requires = (DropSideEffects,)
    takes_name = True
    operators: ClassVar[Mapping[Any, Form]]

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Write one operator in its other form, if it has one."""
        result = self.operators[node.target](module, node, arguments_of(node))
        if result is not None:
            result.meta["val"] = node.meta["val"]
        return result


def arguments_of(node: fx.Node) -> Arguments:
    """Return the arguments of an operator by name, those that were not given, too."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    given = {a.name: value for a, value in zip(schema, node.args, strict=False)}
    defaults = {a.name: a.default_value for a in schema if a.has_default_value()}
    return {**defaults, **given, **node.kwargs}


def inserter(module: fx.GraphModule, node: fx.Node) -> Insert:
    """Return what inserts calls before a node."""
    return lambda function, *a, **k: insert_shaped_call(module, node, function, *a, **k)
