"""What every rewrite of one operator into another needs."""

from collections.abc import Callable
from typing import Any

from torch import fx

from edgedl.compress.graph.edit import insert_shaped_call

Arguments = dict[str, Any]
Insert = Callable[..., fx.Node]
# Makes the other form of an operator in front of it; None where it has none.
Form = Callable[[fx.GraphModule, fx.Node, Arguments], fx.Node | None]


def arguments_of(node: fx.Node) -> Arguments:
    """Return the arguments of an operator by name, those that were not given, too."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    given = {a.name: value for a, value in zip(schema, node.args, strict=False)}
    defaults = {a.name: a.default_value for a in schema if a.has_default_value()}
    return {**defaults, **given, **node.kwargs}


def inserter(module: fx.GraphModule, node: fx.Node) -> Insert:
    """Return what inserts calls before a node."""
    return lambda function, *a, **k: insert_shaped_call(module, node, function, *a, **k)
