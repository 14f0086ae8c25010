"""Recurrent cells, one step of a layer, as the layers that runtimes have kernels for."""

import operator
from typing import Any, ClassVar

from torch import fx

from edgedl.compress.graph.edit import (
    Insert,
    insert_call,
    inserter,
    take_place,
    tensor_of,
)
from edgedl.compress.graph.operators.joining import Item
from edgedl.compress.graph.operators.operator import arguments, aten
from edgedl.compress.graph.passes.forms.side_effects import DropSideEffects
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.values import record_value

# Cell -> its layer, and how many states it keeps.
_LAYERS: dict[Any, tuple[Any, int]] = {
    aten.lstm_cell.default: (aten.lstm.input, 2),
    aten.gru_cell.default: (aten.gru.input, 1),
    aten.rnn_tanh_cell.default: (aten.rnn_tanh.input, 1),
    aten.rnn_relu_cell.default: (aten.rnn_relu.input, 1),
}


class CellsAsLayers(Pass):
    """Write a recurrent cell as its layer over one step.

    A cell whose weights other operators read, too, stays: unrolled in a loop, each step would bring
    its own copy of them into the file.

    Before: ``gru_cell(x, h, w, r, b, c)``.
    After: ``squeeze(gru(unsqueeze(x, 1), unsqueeze(h, 0), [w, r, b, c], ...)[1], 0)``.
    """

    requires = (DropSideEffects,)
    operators: ClassVar[dict[Any, tuple[Any, int]]] = _LAYERS
    takes_name = True

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Write one cell as its layer, if its weights are its own."""
        given = arguments(node)
        weights = [given[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
        params = [weight for weight in weights if weight is not None]
        if len(params) == 3 or any(len(weight.users) > 1 for weight in params):
            return None
        layer, states = _LAYERS[node.target]
        insert = inserter(module, node)
        steps = insert(aten.unsqueeze.default, given["input"], 1)
        before = list(given["hx"]) if states > 1 else [given["hx"]]
        first = [insert(aten.unsqueeze.default, state, 0) for state in before]
        settings = (len(params) == 4, 1, 0.0, False, False, True)
        hx = first if states > 1 else first[0]
        found = insert_call(module.graph, node, layer, steps, hx, params, *settings)
        # torch computes no shapes of a layer whose batch is free.
        last = [tensor_of(module, state) for state in first]
        record_value(found, (last[0].transpose(0, 1), *last))
        if states == 1:
            return _state(insert, found, 0)
        for user in list(node.users):
            take_place(module, user, _state(insert, found, Item.of(user).index))
        return node


def _state(insert: Insert, found: fx.Node, index: int) -> fx.Node:
    """Return one of the last states of a layer, whose first result is every step's."""
    return insert(aten.squeeze.dim, insert(operator.getitem, found, index + 1), 0)
