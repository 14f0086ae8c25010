"""The weights of convolutions and linear layers, each once, with the operators that read it."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, fx

from edgedl.compress.graph.layers import find_operators
from edgedl.compress.graph.operators.operator import Weighted
from edgedl.compress.graph.operators.table import is_weighted


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """A weight of a graph.

    Attributes:
        path: where it is stored; of a tensor at several paths, the first that is read.
        value: the tensor itself, float32, output channels on axis 0, inputs on axis 1.
        readers: the convolutions and linear layers whose weight it is.
        others: the operators that read it otherwise, a tied embedding for example.
    """

    path: str
    value: Tensor
    readers: tuple[fx.Node, ...]
    others: tuple[fx.Node, ...]


def stored_weights(graph: fx.GraphModule, keep: Sequence[str] = ()) -> list[StoredWeight]:
    """Return the weights of a graph in the order they are read, but for those of some layers.

    Args:
        graph: traced, before or after canonicalization.
        keep: layers to leave out: module paths, with all that is inside, or wildcards.

    Raises:
        BadInputError: a name in ``keep`` matches no layer.
    """
    readers: dict[int, list[fx.Node]] = {}
    others: dict[int, list[fx.Node]] = {}
    first: dict[int, tuple[str, Tensor]] = {}
    for node in graph.graph.nodes:
        for constant in node.all_input_nodes:
            if constant.op != "get_attr":
                continue
            path = str(constant.target)
            tensor = operator.attrgetter(path)(graph)
            first.setdefault(id(tensor), (path, tensor))
            side = readers if _is_weight_of(constant, node) else others
            side.setdefault(id(tensor), []).append(node)
    kept = find_operators(graph, keep)
    return [
        StoredWeight(*first[key], tuple(nodes), tuple(others.get(key, ())))
        for key, nodes in readers.items()
        if not kept & set(nodes)
    ]


def _is_weight_of(constant: fx.Node, node: fx.Node) -> bool:
    """Say whether a layer reads a constant as its weight and as nothing else."""
    if not is_weighted(node):
        return False
    view = Weighted.of(node)
    return view.weight is constant and view.input is not constant
