"""Which inputs and outputs of a graph are pictures or maps: [N, C, H, W] beside a convolution."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, fx

from edgedl.compress.graph.edit import input_nodes, output_nodes
from edgedl.compress.graph.operators import convolution, joining, moving, normalization, pooling
from edgedl.compress.graph.operators.activation import SOFTMAX
from edgedl.compress.graph.operators.operator import argument, elementwise
from edgedl.compress.graph.operators.table import row_of
from edgedl.compress.graph.values import value_of

# They slide over the height and width of a map, resize it, or make places of its channels.
_OVER_PLACES = (*convolution.ROWS, *pooling.ROWS, *moving.PIXEL_SHUFFLES)
# They leave every axis where it is.
_KEEP_AXES = (joining.CONCAT, *joining.PADDINGS, SOFTMAX, *normalization.ROWS)

TO_CHANNELS_FIRST = [0, 3, 1, 2]
TO_CHANNELS_LAST = [0, 2, 3, 1]


@dataclass(frozen=True)
class Pictures:
    """Which inputs of a graph are pictures, and which outputs are maps, by position.

    A convolution, a pool or another operator over places reads a picture and computes a map, next
    to it or with operators between that leave every axis where it is. Or the network itself turns
    the channels of a picture to the end, and those of a map to the front.
    """

    inputs: frozenset[int] = frozenset()
    outputs: frozenset[int] = frozenset()

    @classmethod
    def of(cls, graph: fx.GraphModule) -> "Pictures":
        """Find them."""
        read = [_leads_to(n, _readers, _reads_picture) for n in input_nodes(graph)]
        written = [_leads_to(n, _sources, _writes_map) for n in output_nodes(graph)]
        return cls(_where(read), _where(written))


NO_PICTURES = Pictures()


def _where(said: list[bool]) -> frozenset[int]:
    return frozenset(position for position, yes in enumerate(said) if yes)


def _leads_to(
    start: fx.Node,
    neighbours: Callable[[fx.Node], list[fx.Node]],
    found: Callable[[fx.Node], bool],
) -> bool:
    if not _has_four_axes(start):
        return False
    seen, waiting = {start}, [start]
    while waiting:
        node = waiting.pop()
        if node is not start or node.op == "call_function":
            if found(node):
                return True
            if not _keeps_axes(node):
                continue
        new = [n for n in neighbours(node) if n not in seen and _has_four_axes(n)]
        seen.update(new)
        waiting += new
    return False


def _readers(node: fx.Node) -> list[fx.Node]:
    return list(node.users)


def _sources(node: fx.Node) -> list[fx.Node]:
    return list(node.all_input_nodes)


def _reads_picture(node: fx.Node) -> bool:
    return row_of(node) in _OVER_PLACES or _permutes(node, TO_CHANNELS_LAST)


def _writes_map(node: fx.Node) -> bool:
    return row_of(node) in _OVER_PLACES or _permutes(node, TO_CHANNELS_FIRST)


def _permutes(node: fx.Node, order: list[int]) -> bool:
    return row_of(node) is moving.PERMUTE and [d % 4 for d in argument(node, "dims")] == order


def _keeps_axes(node: fx.Node) -> bool:
    row = row_of(node)
    return row.join_axes is elementwise or row in _KEEP_AXES


def _has_four_axes(node: fx.Node) -> bool:
    value = value_of(node)
    return isinstance(value, Tensor) and value.ndim == 4
