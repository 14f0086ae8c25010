"""Operators that return a list of tensors: a list has no encoding."""

import operator
from typing import Any

from torch import fx

from edgedl.compress.graph.edit import insert_shaped_call
from edgedl.compress.graph.operators.table import aten
from edgedl.compress.graph.passes.forms.form_pass import arguments_of
from edgedl.compress.graph.passes.graph_pass import Pass

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
        users, axis, source = list(node.users), arguments_of(node)["dim"], node.args[0]
        if any(u.target is not operator.getitem or not isinstance(u.args[1], int) for u in users):
            return None
        for user in users:
            index = int(user.args[1])  # type: ignore[arg-type]
            if node.target in _SPLITS:
                sizes = [part.shape[axis] for part in node.meta["val"]]
                start = sum(sizes[:index])
                ends = (axis, start, start + sizes[index])
                made = insert_shaped_call(module, user, aten.slice.Tensor, source, *ends)
            else:
                made = insert_shaped_call(module, user, aten.select.int, source, axis, index)
            user.replace_all_uses_with(made)
            module.graph.erase_node(user)
        return node
