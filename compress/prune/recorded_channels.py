"""What a history says of channels: those that stay, and what they are in blocks of kernels."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from edgedl.compress.graph.axes import Axis
from edgedl.compress.graph.cuts.channel_groups import ChannelGroup
from edgedl.compress.graph.cuts.mac_counter import MacCounter
from edgedl.compress.latency.timing import Runtime
from edgedl.compress.targets.target import load_target
from edgedl.runtime.bundle.manifest import Setting
from edgedl.runtime.errors import BadInputError


def in_blocks(
    groups: Sequence[ChannelGroup],
    widths: Mapping[Axis, int],
    counter: MacCounter,
    runtime: Runtime,
) -> dict[str, Setting]:
    """Return what kernels compute that fill blocks of channels up: why fewer may not be faster.

    Args:
        groups: that could be pruned.
        widths: leaf -> channels that stay.
        counter: of the network.
        runtime: whose blocks.
    """
    multiple = load_target(runtime).channel_multiple

    def filled(group: ChannelGroup, width: int) -> int:
        step = group.step(multiple)
        return -(-width // step) * step

    changed = [g for g in groups if widths[g.axis] < g.size]
    return {
        "channel_multiple": multiple,
        "widths": tuple(f"{g.name}={widths[g.axis] * g.unit}" for g in changed),
        "macs_in_blocks_before": counter.count({g.axis: filled(g, g.size) for g in groups}),
        "macs_in_blocks_after": counter.count({g.axis: filled(g, widths[g.axis]) for g in groups}),
    }


def write_kept(group: ChannelGroup, channels: Tensor) -> str:
    """Return a group's name and the channels that stay, as the history keeps them."""
    return f"{group.name}={','.join(str(c) for c in channels.tolist())}"


def read_kept(line: str, groups: Mapping[str, Axis]) -> tuple[Axis, Tensor]:
    """Return a group's leaf and the channels that stay, from what ``write_kept`` wrote.

    Raises:
        BadInputError: there is no such group, or it has fewer channels.
    """
    name, _, listed = line.partition("=")
    channels = torch.tensor([int(c) for c in listed.split(",")])
    if name not in groups:
        raise BadInputError(
            f"the history prunes '{name}', the module has no such channels: is it another "
            "architecture?"
        )
    if int(channels.max()) >= groups[name].size:
        raise BadInputError(
            f"the history keeps channel {int(channels.max())} of '{name}', the module has "
            f"{groups[name].size}: is it of another width?"
        )
    return groups[name], channels
