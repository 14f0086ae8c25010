"""Other forms of operators that bring values into another order."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import fx

from edgedl.compress.graph.edit import constant_of, insert_constant, inserter, tensor_of
from edgedl.compress.graph.operators.moving import order_of
from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.passes.forms.form_pass import Arguments, Form, FormPass
from edgedl.compress.graph.values import shape_of


def _transpose(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node:
    axes = [v for k, v in given.items() if k != "self"] or [-2, -1]
    return inserter(module, node)(aten.transpose.int, given["self"], *axes)


def _permute_of_movedim(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node:
    order = order_of(node, len(shape_of(node)))
    return inserter(module, node)(aten.permute.default, given["self"], order)


def _permute_of_einsum(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    before, _, after = given["equation"].replace(" ", "").partition("->")
    if len(given["tensors"]) != 1 or sorted(before) != sorted(after) or "." in before:
        return None
    axes = [before.index(letter) for letter in after]
    return inserter(module, node)(aten.permute.default, given["tensors"][0], axes)


def _slice_of_narrow(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    start, length = given["start"], given["length"]
    if not isinstance(start, int) or not isinstance(length, int) or start < 0:
        return None
    insert = inserter(module, node)
    return insert(aten.slice.Tensor, given["self"], given["dim"], start, start + length)


def _select_of_index(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    """Write ``x[:, places]``, one list of places along one axis, as what it is."""
    used = [(axis, index) for axis, index in enumerate(given["indices"]) if index is not None]
    if len(used) != 1:
        return None
    axis, index = used[0]
    places, size = constant_of(module, index), tensor_of(module, given["self"]).shape[axis]
    if places is None or places.ndim != 1 or places.dtype not in (torch.int64, torch.int32):
        return None
    if bool((places < 0).any()):
        if not isinstance(size, int):
            return None
        index = insert_constant(module, node, f"{node.name}_places", places % size)
    return inserter(module, node)(aten.index_select.default, given["self"], axis, index)


_TRANSPOSITIONS: frozenset[Any] = frozenset(
    {aten.swapaxes.default, aten.swapdims.default, aten.mT.default}
)
_PERMUTATIONS: frozenset[Any] = frozenset(
    {aten.movedim.int, aten.movedim.intlist, aten.moveaxis.int, aten.moveaxis.intlist}
)


class MoveForms(FormPass):
    """Write what moves values as transpositions, permutations, slices and selections.

    Before: ``mT(x)``, ``movedim(x, 1, 3)``, ``narrow(x, 1, 2, 3)``, ``index(x, [None, places])``.
    After: ``transpose(x, -2, -1)``, ``permute(x, [0, 2, 3, 1])``, ``slice(x, 1, 2, 5)``,
    ``index_select(x, 1, places)``.
    """

    operators: ClassVar[Mapping[Any, Form]] = {
        **dict.fromkeys(_TRANSPOSITIONS, _transpose),
        **dict.fromkeys(_PERMUTATIONS, _permute_of_movedim),
        aten.narrow.default: _slice_of_narrow,
        aten.index.Tensor: _select_of_index,
        aten.einsum.default: _permute_of_einsum,
    }
    gone = _TRANSPOSITIONS | _PERMUTATIONS
