"""Write each operator under one of the names and forms that torch has for it.

What comes behind (the quantizer, the exporters) knows that one alone.
"""

from typing import Any

import torch
from torch import fx

from edgedl.compress.graph.edit import is_constant, take_place
from edgedl.compress.graph.operators.table import aten
from edgedl.compress.graph.passes.computing_forms import COMPUTING_FORMS
from edgedl.compress.graph.passes.forms import Form, arguments_of, inserter
from edgedl.compress.graph.passes.moving_forms import MOVING_FORMS

# What changes nothing in evaluation.
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
    }
)

# What changes nothing if the type was that already.
_SAME_TYPE: frozenset[Any] = frozenset(
    {aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten.type_as.default}
)

_FORMS: dict[Any, Form] = {**MOVING_FORMS, **COMPUTING_FORMS}


def use_one_name(module: fx.GraphModule) -> None:
    """Apply every rewrite of this module to a traced graph, in place."""
    for node in list(module.graph.nodes):
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        node = _without_side_effect(module, node)
        if node.target is aten._assert_tensor_metadata.default:
            module.graph.erase_node(node)
        elif node.target in _NOTHING or (node.target in _SAME_TYPE and _keeps_type(node)):
            node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
            module.graph.erase_node(node)
        elif node.target in _FORMS:
            result = _FORMS[node.target](module, node, arguments_of(node))
            if result is not None:
                result.meta["val"] = node.meta["val"]
                take_place(module, node, result)


def _without_side_effect(module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """Return an operator that works in place as one that makes a new tensor.

    Whoever reads the changed tensor later reads that one. It stays if something that shares its
    memory is read later, as the whole of a tensor whose slice was changed.
    """
    name = node.target._overloadname  # type: ignore[union-attr]
    packet = node.target.overloadpacket.__name__  # type: ignore[union-attr]
    twin = getattr(aten, packet.removesuffix("_"), None) if packet.endswith("_") else None
    if twin is None or name not in twin.overloads():
        return node
    changed, later = node.args[0], _nodes_behind(node)
    if not isinstance(changed, fx.Node) or is_constant(changed):
        return node
    if any(user in later for view in _views_beside(changed, node, later) for user in view.users):
        return node
    made = inserter(module, node)(getattr(twin, name), *node.args, **node.kwargs)
    made.meta["val"] = node.meta["val"]
    changed.replace_all_uses_with(made, delete_user_cb=lambda user: user in later)
    take_place(module, node, made)
    return made


def _views_beside(changed: fx.Node, by: fx.Node, later: set[fx.Node]) -> list[fx.Node]:
    """Return the other nodes so far that may hold the same memory: slices, reshapes, their base."""
    behind = {by, *later}
    base = changed
    while _is_view(base) and isinstance(base.args[0], fx.Node):
        base = base.args[0]
    found = [base]
    for view in found:
        found += [user for user in view.users if _is_view(user) and user not in behind]
    return [view for view in found if view is not changed]


def _is_view(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(r.alias_info is not None for r in schema.returns)


def _nodes_behind(node: fx.Node) -> set[fx.Node]:
    found, behind = set(), node.next
    while behind.op != "root":
        found.add(behind)
        behind = behind.next
    return found


def _keeps_type(node: fx.Node) -> bool:
    before = node.args[0].meta.get("val") if isinstance(node.args[0], fx.Node) else None
    after = node.meta.get("val")
    return before is not None and after is not None and before.dtype == after.dtype
