"""The groups of channels that a network uses in a way that pruning does not follow."""

from collections.abc import Sequence

import torch
from torch import Tensor

from edgedl.compress.graph.cuts.channel_groups import ChannelGroup
from edgedl.compress.graph.cuts.exactness import why_not_exact
from edgedl.compress.graph.cuts.tensor_axes import TensorAxes


def wrong_groups(
    axes: TensorAxes, groups: Sequence[ChannelGroup], inputs: Sequence[Tensor]
) -> dict[str, str]:
    """Return the groups that must stay whole so that a cut of all others is exact: name -> why.

    Half of the channels of each are cut, drawn at random, to try it.

    Args:
        axes: of the network.
        groups: of ``channel_groups``.
        inputs: one tensor [N, ...] per argument.
    """
    generator = torch.Generator().manual_seed(0)
    halves = {
        g.axis: torch.randperm(g.size, generator=generator)[: g.size // 2].sort().values
        for g in groups
    }
    if not groups or not why_not_exact(axes, halves, inputs):
        return {}
    wrong: dict[str, str] = {}
    right: list[ChannelGroup] = []
    for group in groups:
        tried = {g.axis: halves[g.axis] for g in (*right, group)}
        reason = why_not_exact(axes, tried, inputs)
        if reason:
            wrong[group.name] = reason
        else:
            right.append(group)
    return wrong
