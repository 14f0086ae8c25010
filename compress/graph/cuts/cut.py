"""Cut channels out of a network: its tensors, and the sizes that stand in its operators."""

import operator
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from torch import Tensor, fx, nn

from edgedl.compress.graph.cuts.axes import Axis, kept_positions
from edgedl.compress.graph.cuts.shape_rules import argument
from edgedl.compress.graph.cuts.tensor_axes import TensorAxes
from edgedl.compress.graph.edit import copy_graph
from edgedl.compress.graph.operators.table import CONVOLUTIONS, TRANSPOSED, aten

Kept = Mapping[Axis, Tensor]


def cut_channels(axes: TensorAxes, kept: Kept) -> fx.GraphModule:
    """Return a copy of the graph of some axes, with part of its channels.

    Args:
        axes: of the network.
        kept: leaf -> the channels int64 that stay, in ascending order; the others stay whole.
    """
    graph, copy = axes.graph, copy_graph(axes.graph)
    made: dict[int, Tensor] = {}
    for path, own in axes.tensors.items():
        old = operator.attrgetter(path)(graph)
        if id(old) not in made:
            made[id(old)] = _cut(old, [kept_positions(axis, kept) for axis in own])
        _store(copy, path, made[id(old)])
    # A shared tensor has other names, too, that no operator reads.
    for path, old in graph.named_parameters(remove_duplicate=False):
        if id(old) in made:
            _store(copy, path, made[id(old)])
    sizes = _Sizes(axes, kept)
    for before, after in zip(graph.graph.nodes, copy.graph.nodes, strict=True):
        if before.target in RESIZE:
            RESIZE[before.target](sizes, before, after)
        if before in axes.values:
            after.meta["val"] = sizes.resized(before.meta.get("val"), axes.values[before])
    copy.recompile()
    return copy


def _cut(tensor: Tensor, positions: list[Tensor]) -> Tensor:
    cut = tensor.detach()
    for axis, wanted in enumerate(positions):
        if len(wanted) != cut.shape[axis]:
            cut = cut.index_select(axis, wanted)
    cut = cut.clone()
    return nn.Parameter(cut, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else cut


def _store(module: fx.GraphModule, path: str, value: Tensor) -> None:
    parent, _, leaf = path.rpartition(".")
    setattr(module.get_submodule(parent), leaf, value)


class _Sizes:
    """Sizes of axes after the cut."""

    def __init__(self, axes: TensorAxes, kept: Kept) -> None:
        self._axes, self._kept = axes, kept

    def new(self, axis: Axis) -> int:
        return len(kept_positions(axis, self._kept))

    def of(self, node: Any) -> list[int]:
        return [self.new(axis) for axis in self._axes.of(node)]

    def parts(self, node: Any, dim: int) -> list[int]:
        return [self.new(axes[dim]) for axes in self._axes.results(node)]

    def changed(self, node: Any, dim: int) -> bool:
        axis = self._axes.of(node)[dim]
        return self.new(axis) != axis.size

    def position(self, axis: Axis, old: int) -> int:
        """Return how many of the first ``old`` positions of an axis stay."""
        return int((kept_positions(axis, self._kept) < old).sum())

    def axis(self, node: Any, dim: int) -> Axis:
        return self._axes.of(node)[dim]

    def rescaled(self, size: Any, axis: Axis) -> Any:
        """Return the size of an axis after the cut; of a free one its other factors change."""
        share = Fraction(self.new(axis), axis.size)
        return size if share == 1 else size * share.numerator // share.denominator

    def resized(self, value: Any, axes: Sequence[Any]) -> Any:
        """Return a shape-only tensor, or several, with the sizes after the cut."""
        if isinstance(value, Tensor):
            shape = [self.rescaled(s, axis) for s, axis in zip(value.shape, axes, strict=True)]
            return value.new_empty(shape)
        if isinstance(value, (list, tuple)):
            return [self.resized(v, a) for v, a in zip(value, axes, strict=True)]
        return value


def _resize_convolution(sizes: _Sizes, before: fx.Node, after: fx.Node) -> None:
    groups = argument(before, 6, 1)
    if groups != 1:
        channels, weight = sizes.of(before.args[0])[1], sizes.of(before.args[1])
        transposed = before.target is TRANSPOSED
        new = sizes.of(before)[1] // weight[1] if transposed else channels // weight[1]
        _set(after, 6, new)


def _resize_shape(sizes: _Sizes, before: fx.Node, after: fx.Node) -> None:
    """New numbers for the sizes that are written out, and factors of free ones; -1 stays."""
    new = sizes.of(before)
    position = 2 if before.target is aten.unflatten.int else 1
    given = list(argument(before, position))
    first = int(argument(before, 1)) % len(sizes.of(before.args[0])) if position == 2 else 0
    changed = list(argument(after, position))
    for d, size in enumerate(given):
        if not isinstance(size, int):
            changed[d] = _rescale(sizes, after, changed[d], sizes.axis(before, first + d))
        elif size > 0:
            changed[d] = new[first + d]
    _set(after, position, changed)


def _rescale(sizes: _Sizes, reader: fx.Node, size: fx.Node, axis: Axis) -> fx.Node:
    """Return the node of a free size after the cut, new where factors of it are channels."""
    share = Fraction(sizes.new(axis), axis.size)
    if share == 1:
        return size
    graph = reader.graph
    with graph.inserting_before(reader):
        many = graph.call_function(operator.mul, (size, share.numerator))
        return graph.call_function(operator.floordiv, (many, share.denominator))


def _resize_slice(sizes: _Sizes, before: fx.Node, after: fx.Node) -> None:
    source = before.args[0]
    dim = int(argument(before, 1, 0))
    if sizes.changed(source, dim):
        axis = sizes.axis(source, dim)
        first, last, _ = slice(argument(before, 2), argument(before, 3)).indices(axis.size)
        _set(after, 3, sizes.position(axis, last))
        _set(after, 2, sizes.position(axis, first))


def _resize_split(sizes: _Sizes, before: fx.Node, after: fx.Node) -> None:
    dim = int(argument(before, 2, 0))
    if sizes.changed(before.args[0], dim):
        new = sizes.parts(before, dim)
        _set(after, 1, new if before.target is aten.split_with_sizes.default else new[0])


def _resize_norm(sizes: _Sizes, before: fx.Node, after: fx.Node) -> None:
    count = len(argument(before, 1))
    _set(after, 1, sizes.of(before)[-count:])


def _set(node: fx.Node, position: int, value: Any) -> None:
    node.args = (*node.args[:position], value, *node.args[position + 1 :])


RESIZE: dict[Any, Callable[[_Sizes, fx.Node, fx.Node], None]] = {
    **dict.fromkeys(
        (*CONVOLUTIONS, TRANSPOSED),
        _resize_convolution,
    ),
    **dict.fromkeys(
        (aten.view.default, aten.reshape.default, aten.expand.default, aten.unflatten.int),
        _resize_shape,
    ),
    **dict.fromkeys((aten.split.Tensor, aten.split_with_sizes.default), _resize_split),
    aten.slice.Tensor: _resize_slice,
    **dict.fromkeys((aten.layer_norm.default, aten.rms_norm.default), _resize_norm),
}
