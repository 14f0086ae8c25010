"""How much a channel matters: the channels of a group that matter least go first."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, fx

from edgedl.compress.graph.axes import Axis, channels_of
from edgedl.compress.graph.cuts.channel_groups import ChannelGroup
from edgedl.compress.graph.cuts.tensor_axes import TensorAxes
from edgedl.compress.graph.edit import copy_graph, get_tensor
from edgedl.compress.graph.operators.normalization import BATCH_NORM, BatchNorm
from edgedl.compress.graph.operators.table import row_of
from edgedl.compress.subject.outputs import as_tuple
from edgedl.runtime.errors import BadInputError

Importance = Literal["l1", "l2", "batch_norm", "taylor", "lamp", "random"]

# Path of a parameter -> what each of its values contributes, float32 of the same shape.
Contributions = Mapping[str, Tensor]


def magnitudes(graph: fx.GraphModule, power: int) -> Contributions:
    """Return |w| or w^2 of every parameter.

    Source: Li et al., "Pruning filters for efficient convnets", 2017, section 3.1.
    """
    return {path: p.detach().abs() ** power for path, p in graph.named_parameters()}


def batch_norm_scales(graph: fx.GraphModule) -> Contributions:
    """Return |scale| of every batch norm, and nothing of other parameters.

    Channels in front of no batch norm have none: what is not in the result must stay.

    Source: Liu et al., "Learning efficient convolutional networks through network slimming", 2017,
    section 3.

    Raises:
        BadInputError: the network has no batch norm.
    """
    norms = [BatchNorm.of(n) for n in graph.graph.nodes if row_of(n) is BATCH_NORM]
    paths = [str(norm.weight.target) for norm in norms if norm.weight is not None]
    if not paths:
        raise BadInputError("importance 'batch_norm' needs batch norms, the network has none")
    return {path: get_tensor(graph, path).abs() for path in paths}


def taylor(
    graph: fx.GraphModule,
    batches: Iterable[tuple[tuple[Tensor, ...], Tensor]],
    loss: Callable[[tuple[Tensor, ...], Tensor], Tensor],
) -> Iterator[Contributions]:
    """Yield gradient times value of every parameter, batch by batch.

    Their sum over a channel's values is what the loss would change by, to first order, if the
    channel went. Over many batches of a trained network it nears zero, so ``loss_changes`` takes
    the mean of the squares.

    Source: Molchanov et al., "Importance estimation for neural network pruning", 2019, section
    3.1, equation 8.

    Args:
        graph: the network.
        batches: (inputs, labels).
        loss: maps the outputs and labels to a scalar.
    """
    graph = copy_graph(graph).requires_grad_(True)
    parameters = dict(graph.named_parameters())
    for inputs, labels in batches:
        gradients = torch.autograd.grad(
            loss(as_tuple(graph(*inputs)), labels), list(parameters.values()), allow_unused=True
        )
        yield {
            path: gradient * p.detach()
            for (path, p), gradient in zip(parameters.items(), gradients, strict=True)
            if gradient is not None
        }


def channel_scores(axes: TensorAxes, group: ChannelGroup, contributions: Contributions) -> Tensor:
    """Return the importance float32 [channels] of a group, on average the layers that have them.

    Every tensor that has the channels counts alike, whatever its size: its contributions are
    summed over a channel and divided by their mean over channels. A channel of a residual sum,
    which many layers write and read, matters as much to each of them as one between two layers.

    Args:
        axes: of the network.
        group: whose channels.
        contributions: of ``magnitudes`` or ``batch_norm_scales``.
    """
    parts = [sums / sums.mean() for sums in _sums(axes, group, contributions) if sums.any()]
    layers = sum(len(axes.tensors[path]) > 1 for path, _ in group.places)
    return torch.stack(parts).mean(0) * layers if parts else torch.ones(group.size)


def loss_changes(
    axes: TensorAxes, group: ChannelGroup, contributions: Sequence[Contributions]
) -> Tensor:
    """Return by how much the loss would change, squared, without each channel [channels] alone.

    Args:
        axes: of the network.
        group: whose channels.
        contributions: of ``taylor``, one for each batch.
    """
    batches = [torch.stack(_sums(axes, group, c)) ** 2 for c in contributions]
    return torch.stack(batches).mean(0).sum(0)


def group_scores(
    axes: TensorAxes,
    groups: Sequence[ChannelGroup],
    importance: Importance,
    changes: Callable[[], Sequence[Contributions]],
    seed: int,
) -> dict[Axis, Tensor]:
    """Return the importance float32 [channels] of groups, by their axes.

    Args:
        axes: of the network.
        groups: whose channels.
        importance: what says that a channel matters.
        changes: gives those of ``taylor``.
        seed: of "random".
    """
    if importance == "random":
        generator = torch.Generator().manual_seed(seed)
        return {g.axis: torch.rand(g.size, generator=generator) for g in groups}
    if importance == "taylor":
        batches = changes()
        return {g.axis: loss_changes(axes, g, batches) for g in groups}
    scales = importance == "batch_norm"
    contributions = (
        batch_norm_scales(axes.graph)
        if scales
        else magnitudes(axes.graph, 1 if importance == "l1" else 2)
    )
    scores = {g.axis: channel_scores(axes, g, contributions) for g in groups}
    return {a: lamp(s) for a, s in scores.items()} if importance == "lamp" else scores


def _sums(axes: TensorAxes, group: ChannelGroup, contributions: Contributions) -> list[Tensor]:
    """Return the contributions float32 [channels] of a group's channels in each of its tensors."""
    found = []
    for path, index in group.places:
        if path not in contributions:
            continue
        values = contributions[path].movedim(index, 0)
        values = values.reshape(len(values), -1).sum(1)
        channels = channels_of(axes.tensors[path][index], group.axis)
        inside = channels >= 0
        found.append(torch.zeros(group.size).index_add_(0, channels[inside], values[inside]))
    return found


def lamp(scores: Tensor) -> Tensor:
    """Return each score over the sum of those that are not smaller, itself included.

    The last channel has what a group of ``channel_scores`` has on average.

    Source: Lee et al., "Layer-adaptive sparsity for the magnitude-based pruning", 2021, equation
    2, on channels instead of weights.

    >>> lamp(torch.tensor([1.0, 2.0, 1.0]))
    tensor([0.3333, 1.3333, 0.4444])
    """
    order = scores.argsort(stable=True)
    left = scores[order].flip(0).cumsum(0).flip(0)
    found = torch.empty_like(scores)
    found[order] = scores[order] / left.clamp_min(torch.finfo(scores.dtype).tiny)
    return found * scores.mean()
