"""Other forms of concats."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import fx

from edgedl.compress.graph.edit import inserter, tensor_of
from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.passes.forms.form_pass import Arguments, Form, FormPass
from edgedl.compress.graph.values import shape_of

# More copies than these are left to the operator that makes them.
MOST_COPIES = 8


def _cat(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node:
    return inserter(module, node)(aten.cat.default, given["tensors"], given.get("dim", 1))


def _cat_of_stack(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node:
    insert = inserter(module, node)
    axis = given["dim"] % len(shape_of(node))
    parts = [insert(aten.unsqueeze.default, part, axis) for part in given["tensors"]]
    return insert(aten.cat.default, parts, axis)


def _cat_of_roll(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    insert, result = inserter(module, node), given["self"]
    for shift, axis in zip(given["shifts"], given["dims"], strict=False):
        size = shape_of(node)[axis]
        if not isinstance(size, int) or not isinstance(shift, int):
            return None
        if shift % size:
            last = insert(aten.slice.Tensor, result, axis, size - shift % size, size)
            first = insert(aten.slice.Tensor, result, axis, 0, size - shift % size)
            result = insert(aten.cat.default, [last, first], axis)
    return result if result is not given["self"] else None


def _cat_of_repeat(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    """Write a tensor that is repeated a few times along axes that it has as a concat of itself."""
    counts = given["repeats"] if "repeats" in given else given["dims"]
    insert, result = inserter(module, node), given["self"]
    axes = len(shape_of(node))
    known = all(isinstance(count, int) and 0 < count <= MOST_COPIES for count in counts)
    if tensor_of(module, result).ndim != axes or not known:
        return None
    for axis, count in enumerate(counts, start=axes - len(counts)):
        if count > 1:
            result = insert(aten.cat.default, [result] * count, axis)
    return result if result is not given["self"] else None


class JoinForms(FormPass):
    """Write what puts tensors side by side as concats.

    Before: ``stack([x, y])``, ``roll(x, 1, 2)``, ``repeat(x, [1, 2])``.
    After: ``cat([unsqueeze(x, 0), unsqueeze(y, 0)])``, ``cat([last, first], 2)`` of two slices,
    ``cat([x, x], 1)``.
    """

    operators: ClassVar[Mapping[Any, Form]] = {
        aten.concat.default: _cat,
        aten.concatenate.default: _cat,
        aten.hstack.default: _cat,
        aten.stack.default: _cat_of_stack,
        aten.roll.default: _cat_of_roll,
        aten.repeat.default: _cat_of_repeat,
        aten.tile.default: _cat_of_repeat,
    }
    gone = frozenset(
        {aten.concat.default, aten.concatenate.default, aten.hstack.default, aten.stack.default}
    )
