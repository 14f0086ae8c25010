"""Operators that work in place."""

from typing import Any

import torch
from torch import fx

from edgedl.compress.graph.edit import insert_call, is_constant
from edgedl.compress.graph.operators.operator import aten, first_input, is_view
from edgedl.compress.graph.passes.graph_pass import Pass


class DropSideEffects(Pass):
    """Write an operator that works in place as one that makes a new tensor.

    Whoever reads the changed tensor later reads that one. It stays if something that shares its
    memory is read later, as the whole of a tensor whose slice was changed.

    Before: ``relu_(x); mul(x, y)``. After: ``r = relu(x); mul(r, y)``.
    """

    takes_name = True

    def looks_at(self, node: fx.Node) -> bool:
        """Say whether an operator has a twin that makes a new tensor."""
        return twin_of(node) is not None

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Insert the twin of one operator for those that read its result."""
        changed, nodes = first_input(node), list(module.graph.nodes)
        later = set(nodes[nodes.index(node) + 1 :])
        if not isinstance(changed, fx.Node) or is_constant(changed):
            return None
        if any(
            user in later for view in _views_beside(changed, node, later) for user in view.users
        ):
            return None
        made = insert_call(module.graph, node, twin_of(node), *node.args, **node.kwargs)
        changed.replace_all_uses_with(made, delete_user_cb=lambda user: user in later)
        return made


def twin_of(node: fx.Node) -> Any:
    """Return the same operator that makes a new tensor; None for one that does so already."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    packet = node.target.overloadpacket.__name__
    twin = getattr(aten, packet.removesuffix("_"), None) if packet.endswith("_") else None
    return getattr(twin, node.target._overloadname, None)


def _views_beside(changed: fx.Node, by: fx.Node, later: set[fx.Node]) -> list[fx.Node]:
    """Return the other nodes so far that may hold the same memory: slices, reshapes, their base."""
    behind = {by, *later}
    base = changed
    while is_view(base) and isinstance(source := first_input(base), fx.Node):
        base = source
    found = [base]
    for view in found:
        found += [user for user in view.users if is_view(user) and user not in behind]
    return [view for view in found if view is not changed]
