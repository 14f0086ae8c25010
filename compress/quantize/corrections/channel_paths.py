"""Where a factor per channel can go from one layer's outputs to the next layer's inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from edgedl.compress.graph.edit import get_tensor, insert_constant, is_constant, set_tensor
from edgedl.compress.graph.operators.table import HOMOGENEOUS, WEIGHTED, aten, groups_of
from edgedl.compress.subject.score import as_tuple
from edgedl.runtime.errors import EdgedlError

# Homogeneous as well, channel by channel of a feature map [N, C, ...].
POOLS: frozenset[Any] = frozenset(
    {aten.max_pool1d.default, aten.max_pool2d.default, aten.avg_pool2d.default}
)
RESHAPES: frozenset[Any] = frozenset(
    {aten.flatten.using_ints, aten.view.default, aten.reshape.default}
)
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
        if not _has_weight(producer):
            continue
        between: list[fx.Node] = []
        node, axis = producer, 1 if producer.target is not aten.linear.default else _last(producer)
        while len(node.users) == 1:
            user = next(iter(node.users))
            if _has_weight(user) and user.args[0] is node:
                linear = user.target is aten.linear.default
                if axis == (_last(node) if linear else 1):
                    paths.append(ChannelPath(producer, tuple(between), user))
                break
            if not _keeps_channels(node, user, axis):
                break
            between.append(user)
            node = user
    return paths


def _has_weight(node: fx.Node) -> bool:
    return node.target in WEIGHTED and is_constant(node.args[1])


def _last(node: fx.Node) -> int:
    return int(node.meta["val"].ndim) - 1


def _keeps_channels(node: fx.Node, user: fx.Node, axis: int) -> bool:
    """Say whether a factor per channel of ``axis`` passes an operator, which keeps that axis."""
    if user.target in HOMOGENEOUS:
        return True
    shape = node.meta["val"].shape
    if axis != 1:
        return False
    if user.target in POOLS:
        return len(shape) > 2
    if user.target is aten.mean.dim:
        axes = user.args[1] if isinstance(user.args[1], (list, tuple)) else [user.args[1]]
        return len(shape) == 4 and all(int(a) % 4 >= 2 for a in axes)  # type: ignore[arg-type]
    if user.target in RESHAPES:
        flat = user.meta["val"].shape
        return len(flat) == 2 and bool(flat[1] == shape[1:].numel())
    return False


def keeps_rows(node: fx.Node, user: fx.Node) -> bool:
    """Say whether an operator moves the values of a node, but each along its last axis stays."""
    shape, moved = node.meta["val"].shape, user.meta["val"].shape
    last = len(shape) - 1
    if user.target in (aten.clone.default, aten.contiguous.default):
        return True
    if user.target in RESHAPES:
        return bool(shape[-1] == moved[-1])
    if user.target is aten.transpose.int:
        first, second = (int(a) % len(shape) for a in user.args[1:3])  # type: ignore[arg-type]
        return last not in (first, second)
    if user.target is aten.permute.default:
        return int(user.args[1][-1]) % len(shape) == last  # type: ignore[index,arg-type]
    return False


def own_parameters(graph: fx.GraphModule, nodes: Sequence[fx.Node]) -> None:
    """Give each operator a weight and a bias that no other reads, in place."""
    for node in nodes:
        arguments = list(node.args)
        for index, kind in ((1, "weight"), (2, "bias")):
            if len(arguments) > index and is_constant(arguments[index]):
                path = f"{node.name}_own_{kind}"
                value = get_tensor(graph, str(arguments[index].target))  # type: ignore[union-attr]
                arguments[index] = insert_constant(graph, node, path, value)
        node.args = tuple(arguments)


def weight_of(graph: fx.GraphModule, node: fx.Node) -> Tensor:
    """Return the weight of an operator."""
    return get_tensor(graph, _path(node, 1))


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
    set_tensor(graph, _path(node, 1), scaled.reshape(weight_of(graph, node).shape))


def scale_outputs(graph: fx.GraphModule, node: fx.Node, factor: Tensor) -> None:
    """Multiply a layer's weight and bias per output channel, in place; it must own them."""
    weight = weight_of(graph, node)
    set_tensor(graph, _path(node, 1), weight * factor.view(-1, *[1] * (weight.ndim - 1)))
    if len(node.args) > 2 and is_constant(node.args[2]):
        set_tensor(graph, _path(node, 2), get_tensor(graph, _path(node, 2)) * factor)


def add_to_bias(graph: fx.GraphModule, node: fx.Node, shift: Tensor) -> None:
    """Add a vector [C_out] to a layer's bias, in place; it gets one if it has none."""
    if len(node.args) > 2 and is_constant(node.args[2]):
        set_tensor(graph, _path(node, 2), get_tensor(graph, _path(node, 2)) + shift)
        return
    bias = insert_constant(graph, node, f"{node.name}_own_bias", shift)
    node.args = (*node.args[:2], bias, *node.args[3:])


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


def _path(node: fx.Node, index: int) -> str:
    argument = node.args[index]
    if not isinstance(argument, fx.Node):
        raise TypeError(f"argument {index} of '{node.name}' is not a constant")
    return str(argument.target)
