"""Maxima of which nobody reads where they are."""

import operator
from typing import Any

from torch import fx

from edgedl.compress.graph.edit import insert_shaped_call
from edgedl.compress.graph.operators.joining import Item
from edgedl.compress.graph.operators.operator import argument, aten, first_input
from edgedl.compress.graph.passes.forms.side_effects import DropSideEffects
from edgedl.compress.graph.passes.graph_pass import Pass


class MaximaAlone(Pass):
    """Replace the maxima of a tuple whose other half, their places, nobody reads.

    Before: ``max(x, 1)[0]``, ``adaptive_max_pool2d(x, 1)[0]``.
    After: ``amax(x, [1])``, ``amax(x, [2, 3], True)``.
    """

    requires = (DropSideEffects,)
    operators = frozenset({aten.max.dim, aten.adaptive_max_pool2d.default})
    takes_name = True

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Insert the maxima alone for the readers of one tuple."""
        users = list(node.users)
        axes: Any
        if any(user.target is not operator.getitem or Item.of(user).index != 0 for user in users):
            return None
        if node.target is aten.max.dim:
            axes, keepdim = [argument(node, "dim")], argument(node, "keepdim")
        elif list(argument(node, "output_size")) == [1, 1]:
            axes, keepdim = [2, 3], True
        else:
            return None
        x = first_input(node)
        maxima = insert_shaped_call(module, node, aten.amax.default, x, axes, keepdim)
        for user in users:
            user.replace_all_uses_with(maxima)
            module.graph.erase_node(user)
        return maxima
