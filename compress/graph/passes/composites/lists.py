"""Operators that return a list of tensors: a list has no encoding."""

import operator
from typing import Any

from torch import fx

from edgedl.compress.graph.edit import inserter
from edgedl.compress.graph.operators.joining import Item
from edgedl.compress.graph.operators.operator import argument, aten, first_input
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.values import value_of

_SPLITS: frozenset[Any] = frozenset(
    {
        aten.split.Tensor,
        aten.split_with_sizes.default,
        aten.chunk.default,
        aten.tensor_split.sections,
    }
)


class OpenLists(Pass):
    """Write a split or chunk as one slice per part that is read, an unbind as one select per part.

    Before: ``chunk(x, 2, 1)[0]``, ``unbind(x, 1)[0]``. After: ``slice(x, 1, 0, 2)``,
    ``select(x, 1, 0)``.
    """

    operators = _SPLITS | {aten.unbind.int}

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Replace every part of one list by an operator on what the list is made of."""
        users, axis, source = list(node.users), argument(node, "dim"), first_input(node)
        items = [Item.of(user) for user in users if user.target is operator.getitem]
        if len(items) < len(users) or not all(isinstance(item.index, int) for item in items):
            return None
        for user, (_, index) in zip(users, items, strict=True):
            insert = inserter(module, user)
            if node.target in _SPLITS:
                sizes = [part.shape[axis] for part in value_of(node)]
                start = sum(sizes[:index])
                made = insert(aten.slice.Tensor, source, axis, start, start + sizes[index])
            else:
                made = insert(aten.select.int, source, axis, index)
            user.replace_all_uses_with(made)
            module.graph.erase_node(user)
        return node
