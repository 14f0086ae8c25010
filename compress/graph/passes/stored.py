"""What a network computes of its stored tensors alone, computed once and stored."""

from typing import Any

import torch
from torch import Tensor, fx

from edgedl.compress.graph.edit import get_tensor, insert_constant, is_constant
from edgedl.compress.graph.operators.elementwise import ARITHMETIC
from edgedl.compress.graph.operators.joining import CONCAT
from edgedl.compress.graph.operators.operator import is_view
from edgedl.compress.graph.operators.table import row_of
from edgedl.compress.graph.passes.graph_pass import Pass


class StoreComputed(Pass):
    """Store what is computed of stored tensors alone, for operators that have integer kernels.

    A transposed weight of another layer, one that is normalized whenever it is used, a scale or a
    bias that is brought into shape, positions that are looked up.

    Before: ``linear(x, transpose(w, 0, 1))``. After: ``linear(x, w')``.
    """

    def looks_at(self, node: fx.Node) -> bool:
        """Say whether an operator's stored operands have encodings."""
        row = row_of(node)
        return row.has_weight or row.matrix_product or row in (*ARITHMETIC, CONCAT)

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Store what one operator reads."""
        stored = False
        for operand in list(node.all_input_nodes):
            value = None if is_constant(operand) else stored_value(module, operand)
            if value is not None and value.is_floating_point():
                path = f"{operand.name}_stored"
                operand.replace_all_uses_with(insert_constant(module, operand, path, value))
                stored = True
        return node if stored else None


def stored_value(module: fx.GraphModule, node: Any) -> Tensor | None:
    """Return the value of a node that depends on stored tensors alone; None for any other."""
    if not isinstance(node, fx.Node):
        return None
    needed = _needed_constants(node)
    if needed is None:
        return None
    values: dict[fx.Node, Any] = {}
    with torch.no_grad():
        for each in needed:
            if each.op == "get_attr":
                values[each] = get_tensor(module, str(each.target))
            else:
                args, kwargs = fx.map_arg((each.args, each.kwargs), values.__getitem__)
                values[each] = each.target(*args, **kwargs)  # type: ignore[operator]
    value = values[node]
    return value if isinstance(value, Tensor) else None


def _needed_constants(node: fx.Node) -> list[fx.Node] | None:
    """Return the node and all that it is computed of, in order.

    None if an input of the network is among them, or what an operator writes into.
    """
    needed = [node]
    found = {node}
    for each in needed:
        random = torch.Tag.nondeterministic_seeded in getattr(each.target, "tags", ())
        if each.op not in ("get_attr", "call_function") or random:
            return None
        if _is_written(each):
            return None
        new = [n for n in each.all_input_nodes if n not in found]
        found.update(new)
        needed.extend(new)
    return sorted(needed)


def _is_written(node: fx.Node) -> bool:
    """Say whether an operator writes into a value, or into a view of it."""
    views = [node]
    for view in views:
        if any(
            getattr(getattr(u.target, "_schema", None), "is_mutable", False) for u in view.users
        ):
            return True
        views += [user for user in view.users if is_view(user)]
    return False
