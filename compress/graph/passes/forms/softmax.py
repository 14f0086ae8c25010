"""Softmaxes over another axis than the last."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import fx

from edgedl.compress.graph.edit import inserter
from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.passes.forms.form_pass import Arguments, Form, FormPass
from edgedl.compress.graph.values import shape_of


def _softmax_of_last(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    """Turn the axis of a softmax to the end, where every runtime has an integer kernel for it."""
    last = len(shape_of(node)) - 1
    axis = given["dim"] % (last + 1)
    if axis == last or given["dtype"] is not None:
        return None
    insert = inserter(module, node)
    turned = insert(aten.transpose.int, given["self"], axis, last)
    result = insert(aten.softmax.int, turned, last)
    return insert(aten.transpose.int, result, axis, last)


class SoftmaxForms(FormPass):
    """Write a softmax over any axis as one over the last.

    Before: ``softmax(x, 1)``. After: ``transpose(softmax(transpose(x, 1, 3), 3), 1, 3)``.
    """

    operators: ClassVar[Mapping[Any, Form]] = {aten.softmax.int: _softmax_of_last}
