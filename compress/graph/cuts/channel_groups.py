"""The sets of channels that can only be removed together, and where each of them is stored."""

import math
from dataclasses import dataclass, field

from edgedl.compress.graph.axes import Axis, channels_of
from edgedl.compress.graph.cuts.tensor_axes import TensorAxes


@dataclass
class ChannelGroup:
    """Channels of one axis, in every tensor that has it.

    Attributes:
        name: of the first tensor and axis that have it, "path:axis", with the place in a composite
            axis where there is one: it finds the group again in the same network.
        axis: the leaf.
        places: (path, axis) of each stored tensor that has it.
        unit: positions of a tensor that one channel stands for: 1, or the width of a head.
    """

    name: str
    axis: Axis
    places: list[tuple[str, int]] = field(default_factory=list)
    unit: int = 0

    @property
    def size(self) -> int:
        """Channels."""
        return self.axis.size

    def step(self, multiple: int) -> int:
        """Return how many channels go at a time, so that all widths are of a multiple.

        >>> ChannelGroup("heads", Axis(12), unit=4).step(16)
        4
        """
        return multiple // math.gcd(multiple, self.unit or 1)


def channel_groups(axes: TensorAxes) -> list[ChannelGroup]:
    """Return the groups that can be pruned, in the order of the graph."""
    groups: dict[Axis, ChannelGroup] = {}
    for path, own in axes.tensors.items():
        for index, axis in enumerate(own):
            leaves = list(axis.leaves())
            for place, leaf in enumerate(leaves):
                if leaf.frozen or leaf.size < 2:
                    continue
                name = f"{path}:{index}" + (f":{place}" if len(leaves) > 1 else "")
                group = groups.setdefault(leaf, ChannelGroup(name, leaf))
                if (path, index) not in group.places:
                    group.places.append((path, index))
                    here = int((channels_of(axis, leaf) == 0).sum())
                    group.unit = math.gcd(group.unit, here)
    return [group for group in groups.values() if len(group.places) > 1]
