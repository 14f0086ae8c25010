"""Where a factor per channel can go from one layer's outputs to the next layer's inputs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from edgedl.compress.graph.edit import get_tensor, insert_constant, is_constant, set_tensor
from edgedl.compress.graph.operators.elementwise import COPIES
from edgedl.compress.graph.operators.moving import PERMUTE, RESHAPES, TRANSPOSE
from edgedl.compress.graph.operators.operator import Weighted, argument, set_argument
from edgedl.compress.graph.operators.pooling import AVG_POOL2D, MAX_POOLS
from edgedl.compress.graph.operators.reduction import MEAN, reduced_axes
from edgedl.compress.graph.operators.table import groups_of, has_stored_weight, row_of
from edgedl.compress.graph.values import shape_of
from edgedl.compress.subject.outputs import as_tuple
from edgedl.runtime.errors import EdgedlError

# Homogeneous as well, channel by channel of a feature map [N, C, ...].
POOLS = (*MAX_POOLS, AVG_POOL2D)
EQUAL_WITHIN = 1e-4


class NotEquivalentError(EdgedlError):
    """A rewrite that should keep what the network computes did not."""


@dataclass(frozen=True)
class ChannelPath:
    """A layer, what stands behind it, and the one layer that reads it.

    Attributes:
        producer: convolution or linear layer.
        between: operators through which a positive factor per channel passes unchanged.
        consumer: convolution or linear layer.
    """

    producer: fx.Node
    between: tuple[fx.Node, ...]
    consumer: fx.Node


def find_paths(graph: fx.Graph) -> list[ChannelPath]:
    """Return every pair of layers with nothing but homogeneous operators between, in order.

    Each value on the way has a single user. The channels of a feature map may become blocks of
    the inputs of a linear layer (flatten).
    """
    paths = []
    for producer in graph.nodes:
        if not has_stored_weight(producer):
            continue
        between: list[fx.Node] = []
        node, axis = producer, _channel_axis(producer, producer)
        while len(node.users) == 1:
            user = next(iter(node.users))
            if has_stored_weight(user) and Weighted.of(user).input is node:
                if axis == _channel_axis(user, node):
                    paths.append(ChannelPath(producer, tuple(between), user))
                break
            if not _keeps_channels(node, user, axis):
                break
            between.append(user)
            node = user
    return paths


def _channel_axis(layer: fx.Node, value: fx.Node) -> int:
    """Return the axis of a layer's channels in a value, counted from the first."""
    return row_of(layer).channel_axis % len(shape_of(value))


def _keeps_channels(node: fx.Node, user: fx.Node, axis: int) -> bool:
    """Say whether a factor per channel of ``axis`` passes an operator, which keeps that axis."""
    row = row_of(user)
    if row.homogeneous:
        return True
    shape = shape_of(node)
    if axis != 1:
        return False
    if row in POOLS:
        return len(shape) > 2
    if row is MEAN:
        return len(shape) == 4 and min(reduced_axes(user, 4)) >= 2
    if row in RESHAPES:
        flat = shape_of(user)
        return len(flat) == 2 and bool(flat[1] == shape[1:].numel())
    return False


def keeps_rows(node: fx.Node, user: fx.Node) -> bool:
    """Say whether an operator moves the values of a node, but each along its last axis stays."""
    row, shape = row_of(user), shape_of(node)
    last = len(shape) - 1
    if row in COPIES:
        return True
    if row in RESHAPES:
        return bool(shape[-1] == shape_of(user)[-1])
    if row is TRANSPOSE:
        return last not in [argument(user, name) % len(shape) for name in ("dim0", "dim1")]
    return row is PERMUTE and argument(user, "dims")[-1] % len(shape) == last


def own_parameters(graph: fx.GraphModule, nodes: Sequence[fx.Node]) -> None:
    """Give each operator a weight and a bias that no other reads, in place."""
    for node in nodes:
        for kind in ("weight", "bias"):
            stored = argument(node, kind)
            if is_constant(stored):
                value = get_tensor(graph, str(stored.target))
                own = insert_constant(graph, node, f"{node.name}_own_{kind}", value)
                set_argument(node, kind, own)


def weight_of(graph: fx.GraphModule, node: fx.Node) -> Tensor:
    """Return the weight of an operator."""
    return get_tensor(graph, Weighted.of(node).weight_path)


def by_inputs(graph: fx.GraphModule, node: fx.Node, channels: int) -> Tensor:
    """Return a layer's weight [groups, outputs, inputs, taps] of each group.

    Input channel c is (c // inputs, c % inputs); a flattened one has a block of taps.
    """
    weight = weight_of(graph, node)
    groups = groups_of(node)
    return weight.reshape(groups, len(weight) // groups, channels // groups, -1)


def input_amax(graph: fx.GraphModule, node: fx.Node, channels: int) -> Tensor:
    """Return the largest magnitude of a weight per input channel, float32 [channels]."""
    return by_inputs(graph, node, channels).abs().amax((1, 3)).flatten()


def scale_inputs(graph: fx.GraphModule, node: fx.Node, factor: Tensor) -> None:
    """Multiply a layer's weight per input channel, in place; the operator must own it."""
    weight = by_inputs(graph, node, len(factor))
    scaled = weight * factor.view(len(weight), 1, -1, 1)
    set_tensor(graph, Weighted.of(node).weight_path, scaled.reshape(weight_of(graph, node).shape))


def scale_outputs(graph: fx.GraphModule, node: fx.Node, factor: Tensor) -> None:
    """Multiply a layer's weight and bias per output channel, in place; it must own them."""
    layer = Weighted.of(node)
    weight = get_tensor(graph, layer.weight_path)
    set_tensor(graph, layer.weight_path, weight * factor.view(-1, *[1] * (weight.ndim - 1)))
    if layer.bias_path is not None:
        set_tensor(graph, layer.bias_path, get_tensor(graph, layer.bias_path) * factor)


def add_to_bias(graph: fx.GraphModule, node: fx.Node, shift: Tensor) -> None:
    """Add a vector [C_out] to a layer's bias, in place; it gets one if it has none."""
    path = Weighted.of(node).bias_path
    if path is None:
        set_argument(node, "bias", insert_constant(graph, node, f"{node.name}_own_bias", shift))
    else:
        set_tensor(graph, path, get_tensor(graph, path) + shift)


@torch.no_grad()
def check_same(
    before: fx.GraphModule, after: fx.GraphModule, inputs: tuple[Tensor, ...], stage: str
) -> None:
    """Compare two graphs on a batch.

    Raises:
        NotEquivalentError: an output differs by more than 1e-4 of its largest magnitude.
    """
    pairs = zip(as_tuple(before(*inputs)), as_tuple(after(*inputs)), strict=True)
    for index, (a, b) in enumerate(pairs):
        difference = float((a - b).abs().max() / a.abs().max().clamp(min=1e-30))
        if not difference <= EQUAL_WITHIN:
            raise NotEquivalentError(
                f"{stage} changed output {index} by {difference:.2g} of its largest value: the "
                "weights are too uneven for float32, leave this stage out of the recipe"
            )
