"""Softmaxes over another axis than the last."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import fx

from edgedl.compress.graph.edit import inserter
from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.passes.forms.form_pass import Arguments, Form, FormPass
from edgedl.compress.graph.values import shape_of


def _softmax_of_last(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    """Turn the axis of a softmax to the end, where every runtime has an integer kernel for it.

    The others keep their order: of a map [N, C, H, W] that is the layout of TFLite's convolutions.
    """
    rank = len(shape_of(node))
    last = rank - 1
    axis = given["dim"] % rank
    if axis == last or given["dtype"] is not None:
        return None
    others = [place for place in range(rank) if place != axis]
    back = [*range(axis), last, *range(axis, last)]
    insert = inserter(module, node)
    turned = insert(aten.permute.default, given["self"], [*others, axis])
    result = insert(aten.softmax.int, turned, last)
    return insert(aten.permute.default, result, back)


class SoftmaxForms(FormPass):
    """Write a softmax over any axis as one over the last.

    Before: ``softmax(x, 1)``.
    After: ``permute(softmax(permute(x, [0, 2, 3, 1]), 3), [0, 3, 1, 2])``.
    """

    operators: ClassVar[Mapping[Any, Form]] = {aten.softmax.int: _softmax_of_last}
