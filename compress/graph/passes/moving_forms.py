"""Other forms of operators that move values, written as the few that are known."""

from typing import Any

import torch
from torch import fx

from edgedl.compress.graph.edit import get_tensor, insert_constant, is_constant, tensor_of
from edgedl.compress.graph.operators.table import aten
from edgedl.compress.graph.passes.forms import Arguments, Form, inserter

# More copies than these are left to the operator that makes them.
MOST_COPIES = 8


def _cat(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node:
    return inserter(module, node)(aten.cat.default, given["tensors"], given["dim"])


def _cat_of_hstack(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node:
    return inserter(module, node)(aten.cat.default, given["tensors"], 1)


def _cat_of_stack(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node:
    insert = inserter(module, node)
    axis = given["dim"] % node.meta["val"].ndim
    parts = [insert(aten.unsqueeze.default, part, axis) for part in given["tensors"]]
    return insert(aten.cat.default, parts, axis)


def _cat_of_roll(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    insert, result = inserter(module, node), given["self"]
    for shift, axis in zip(given["shifts"], given["dims"], strict=False):
        size = node.meta["val"].shape[axis]
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
    first = node.meta["val"].ndim - len(counts)
    known = all(isinstance(count, int) and 0 < count <= MOST_COPIES for count in counts)
    if tensor_of(module, result).ndim != node.meta["val"].ndim or not known:
        return None
    for axis, count in enumerate(counts, start=first):
        if count > 1:
            result = insert(aten.cat.default, [result] * count, axis)
    return result if result is not given["self"] else None


def _transpose(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node:
    axes = [v for k, v in given.items() if k != "self"] or [-2, -1]
    return inserter(module, node)(aten.transpose.int, given["self"], *axes)


def _permute_of_movedim(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node:
    """Write it as a permutation, read off axes that have their number for a size."""
    axes = torch.empty(tuple(range(node.meta["val"].ndim)), device="meta")
    order = list(torch.movedim(axes, given["source"], given["destination"]).shape)
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
    if not is_constant(index):
        return None
    places, size = (
        get_tensor(module, str(index.target)),
        tensor_of(module, given["self"]).shape[axis],
    )
    if places.ndim != 1 or places.dtype not in (torch.int64, torch.int32):
        return None
    if bool((places < 0).any()):
        if not isinstance(size, int):
            return None
        index = insert_constant(module, node, f"{node.name}_places", places % size)
    return inserter(module, node)(aten.index_select.default, given["self"], axis, index)


MOVING_FORMS: dict[Any, Form] = {
    aten.concat.default: _cat,
    aten.concatenate.default: _cat,
    aten.hstack.default: _cat_of_hstack,
    aten.stack.default: _cat_of_stack,
    aten.roll.default: _cat_of_roll,
    aten.swapaxes.default: _transpose,
    aten.swapdims.default: _transpose,
    aten.mT.default: _transpose,
    aten.movedim.int: _permute_of_movedim,
    aten.movedim.intlist: _permute_of_movedim,
    aten.moveaxis.int: _permute_of_movedim,
    aten.moveaxis.intlist: _permute_of_movedim,
    aten.narrow.default: _slice_of_narrow,
    aten.index.Tensor: _select_of_index,
    aten.einsum.default: _permute_of_einsum,
    aten.repeat.default: _cat_of_repeat,
    aten.tile.default: _cat_of_repeat,
}
