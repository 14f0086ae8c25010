"""Cut channels out of a network: its tensors, and the sizes that stand in its operators."""

import operator

from torch import Tensor, fx, nn

from edgedl.compress.graph.axes import kept_positions
from edgedl.compress.graph.cuts.tensor_axes import TensorAxes
from edgedl.compress.graph.edit import copy_graph
from edgedl.compress.graph.joined_axes import Kept, SizesAfterCut
from edgedl.compress.graph.operators.table import row_of
from edgedl.compress.graph.values import record_value, value_of


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
    sizes = SizesAfterCut(axes, kept)
    for before, after in zip(graph.graph.nodes, copy.graph.nodes, strict=True):
        resize = row_of(before).resize
        if resize is not None:
            resize(sizes, before, after)
        if before in axes.values:
            record_value(after, sizes.resized(value_of(before), axes.values[before]))
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
