"""What can be divided by a factor per channel, and the layers that then multiply."""

from torch import Tensor, fx

from edgedl.compress.graph.edit import get_tensor, insert_constant
from edgedl.compress.graph.operators.linear import LINEAR
from edgedl.compress.graph.operators.normalization import LAYER_NORM, LayerNorm
from edgedl.compress.graph.operators.operator import Weighted, argument, set_argument
from edgedl.compress.graph.operators.table import groups_of, has_stored_weight, row_of
from edgedl.compress.quantize.corrections.channel_paths import (
    find_paths,
    keeps_rows,
    scale_outputs,
)

# What a layer's inputs come from, and the layers that read them.
Readers = dict[fx.Node, list[fx.Node]]


def find_readers(graph: fx.Graph) -> Readers:
    """Return what can be divided -> the layers that then multiply.

    Depthwise layers are left out: each of their channels has a weight grid of its own anyhow.
    """
    readers: Readers = {}
    for node in graph.nodes:
        if row_of(node) is LAYER_NORM and len(LayerNorm.of(node).normalized_shape) == 1:
            layers = _linear_readers(node)
            if layers:
                readers[node] = layers
    for path in find_paths(graph):
        if groups_of(path.consumer) == 1:
            readers[path.producer] = [path.consumer]
    return readers


def _linear_readers(node: fx.Node) -> list[fx.Node]:
    """Return the linear layers that read a node, maybe moved; none if anything else reads it."""
    layers = []
    for user in node.users:
        linear = row_of(user) is LINEAR and has_stored_weight(user)
        if linear and Weighted.of(user).input is node:
            layers.append(user)
            continue
        behind = _linear_readers(user) if keeps_rows(node, user) else []
        if not behind:
            return []
        layers += behind
    return layers


def weighted_layers(readers: Readers) -> list[fx.Node]:
    """Return all layers whose weights change, each once."""
    layers = [n for n in readers if row_of(n) is not LAYER_NORM]
    return list(dict.fromkeys([*layers, *(n for found in readers.values() for n in found)]))


def divide_outputs(graph: fx.GraphModule, producer: fx.Node, factor: Tensor) -> None:
    """Divide what a norm or layer computes by a factor per channel, in place.

    A layer must own its weight and bias.
    """
    if row_of(producer) is not LAYER_NORM:
        scale_outputs(graph, producer, 1 / factor)
        return
    for kind in ("weight", "bias"):
        constant = argument(producer, kind)
        if isinstance(constant, fx.Node):
            value = get_tensor(graph, str(constant.target)) / factor
        elif kind == "weight":
            value = 1 / factor
        else:
            continue
        own = insert_constant(graph, producer, f"{producer.name}_own_{kind}", value)
        set_argument(producer, kind, own)
