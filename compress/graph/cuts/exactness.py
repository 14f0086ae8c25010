"""Whether a cut network computes what the whole one does without what was cut.

The whole network computes with zeros in place of the removed channels, in every tensor that has
them. Then each of its values has, at the positions that stay, what the smaller network computes:
otherwise channels were cut that an operator uses in a way that its row does not say. Nothing of
the rows is used for that but what a norm divides by, which counts the channels that are there.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate

from edgedl.compress.errors import first_line
from edgedl.compress.graph.axes import Axis, kept_positions
from edgedl.compress.graph.cuts.cut import cut_channels
from edgedl.compress.graph.cuts.tensor_axes import TensorAxes
from edgedl.compress.graph.joined_axes import Kept
from edgedl.compress.graph.layers import layer_name
from edgedl.compress.graph.operators.table import row_of

# Share of a value's largest number that rounding of float64 may make.
EQUAL_WITHIN = 1e-6
# What is smaller than this is rounding alone.
SMALLEST = 1e-9


def why_not_exact(axes: TensorAxes, kept: Kept, inputs: Sequence[Tensor]) -> str:
    """Return why channels cannot be cut, empty where they can.

    Args:
        axes: of the whole network.
        kept: leaf -> the channels int64 that stay.
        inputs: one tensor [N, ...] per argument.
    """
    try:
        cut = cut_channels(axes, kept)
    except Exception as error:
        # Whatever an operator's row did not think of.
        return f"they cannot be cut: {first_line(error)}"
    return first_difference(axes, kept, cut, inputs)


def first_difference(
    axes: TensorAxes, kept: Kept, cut: fx.GraphModule, inputs: Sequence[Tensor]
) -> str:
    """Return which operator of a cut network computes other values; empty where none does.

    Args:
        axes: of the whole network.
        kept: leaf -> the channels int64 that stay.
        cut: what ``cut_channels`` made of both.
        inputs: one tensor [N, ...] per argument.
    """
    whole, smaller = _Values(axes, kept, cut, inputs), _Values(axes, {}, cut, inputs)
    with torch.no_grad():
        for node in cut.graph.nodes:
            if node.op == "output":
                break
            before = whole.nodes.get(node.name)
            try:
                found = smaller.compute(node)
                if before is None:
                    # It computes a size.
                    continue
                expected = _part(whole.compute(before), axes.values.get(before), kept)
            except Exception as error:
                # Torch reports sizes that do not fit in many classes.
                return f"'{_called(node)}' cannot compute what is left: {first_line(error)}"
            reason = _difference(expected, found)
            if reason:
                return f"'{_called(node)}' {reason}"
    return ""


class _Values:
    """Values of the whole network or of the cut one, node by node, in float64."""

    def __init__(
        self, axes: TensorAxes, kept: Kept, cut: fx.GraphModule, inputs: Sequence[Tensor]
    ) -> None:
        """Take what is cut, to compute the whole network; nothing, to compute the cut one."""
        self._axes, self._kept = axes, kept
        self._module = axes.graph if kept else cut
        self._inputs = iter(inputs)
        self.nodes = {node.name: node for node in self._module.graph.nodes}
        self._smaller = {node.name: node for node in cut.graph.nodes}
        self._found: dict[str, Any] = {}
        self._readers = {node.name: len(node.users) for node in self._module.graph.nodes}

    def compute(self, node: fx.Node) -> Any:
        """Return a node's value; those before it are computed."""
        value = self._found[node.name] = self._compute(node)
        for read in node.all_input_nodes:
            self._readers[read.name] -= 1
            if not self._readers[read.name]:
                del self._found[read.name]
        return value

    def _compute(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return _double(next(self._inputs))
        if node.op == "get_attr":
            stored = operator.attrgetter(str(node.target))(self._module)
            if not isinstance(stored, Tensor):
                return stored
            own = self._axes.tensors[str(node.target)] if self._kept else []
            return _silenced(_double(stored), own, self._kept)
        if self._kept and row_of(node).counts_channels:
            return self._compute_part(node)
        return _call(node, lambda n: self._found[n.name])

    def _compute_part(self, node: fx.Node) -> Tensor:
        """Return what is made of the channels that stay, and zeros in place of the others."""

        def part(n: fx.Node) -> Any:
            return _part(self._found[n.name], self._axes.values.get(self.nodes[n.name]), self._kept)

        made: Tensor = _call(self._smaller[node.name], part)
        read = self._found[node.all_input_nodes[0].name]
        for dim, axis in enumerate(self._axes.of(node)):
            if _is_cut(axis, self._kept):
                shape = list(made.shape)
                shape[dim] = read.shape[dim]
                places = _places(axis, self._kept, shape[dim])
                made = made.new_zeros(shape).index_copy(dim, places, made)
        return made


def _call(node: fx.Node, value_of: Callable[[fx.Node], Any]) -> Any:
    args, kwargs = fx.map_arg((node.args, node.kwargs), value_of)
    # Tensors that are made, or changed in type, shall not be rounded.
    args, kwargs = map_aggregate(
        (args, kwargs), lambda a: torch.float64 if a is torch.float32 else a
    )
    return node.target(*args, **kwargs)  # type: ignore[operator]


def _double(x: Tensor) -> Tensor:
    return x.detach().double() if x.is_floating_point() else x.detach().clone()


def _is_cut(axis: Axis, kept: Kept) -> bool:
    return any(leaf in kept for leaf in axis.leaves())


def _places(axis: Axis, kept: Kept, size: int) -> Tensor:
    """Return the positions that stay; an axis with the batch is as long as that is large."""
    places = kept_positions(axis, kept)
    return places[places < size]


def _silenced(x: Tensor, own: Sequence[Axis], kept: Kept) -> Tensor:
    """Set what belongs to removed channels to zero, in place."""
    for dim, axis in enumerate(own):
        if _is_cut(axis, kept):
            gone = torch.ones(axis.size, dtype=torch.bool)
            gone[kept_positions(axis, kept)] = False
            x.movedim(dim, 0)[gone] = 0
    return x


def _part(value: Any, own: Any, kept: Kept) -> Any:
    """Return a value at the positions that stay; the batch may be any."""
    if isinstance(value, (list, tuple)) and own is not None:
        return [_part(v, a, kept) for v, a in zip(value, own, strict=True)]
    if not isinstance(value, Tensor) or own is None:
        return value
    for dim, axis in enumerate(own):
        if _is_cut(axis, kept):
            value = value.index_select(dim, _places(axis, kept, value.shape[dim]))
    return value


def _difference(expected: Any, found: Any) -> str:
    if isinstance(expected, (list, tuple)):
        return next(filter(None, map(_difference, expected, found)), "")
    if not isinstance(expected, Tensor):
        return ""
    if expected.shape != found.shape:
        return f"returns {list(found.shape)} in place of {list(expected.shape)}"
    if not expected.is_floating_point():
        return "" if torch.equal(expected, found) else "chooses other positions"
    size = float(expected.abs().max()) if expected.numel() else 0.0
    if torch.allclose(
        expected, found, rtol=0, atol=max(SMALLEST, EQUAL_WITHIN * size), equal_nan=True
    ):
        return ""
    return "computes other values of the channels that stay"


def _called(node: fx.Node) -> str:
    return layer_name(node) or node.name
