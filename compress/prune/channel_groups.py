"""The sets of channels that can only be removed together, and where each of them is stored."""

from dataclasses import dataclass, field

from edgedl.compress.prune.axes import Axis
from edgedl.compress.prune.tensor_axes import TensorAxes


@dataclass
class ChannelGroup:
    """Channels of one axis, in every tensor that has it.

    Attributes:
        name: of the first tensor and axis that have it, "path:axis", with the place in a composite
            axis where there is one: it finds the group again in the same network.
        axis: the leaf.
        places: (path, axis) of each stored tensor that has it.
    """

    name: str
    axis: Axis
    places: list[tuple[str, int]] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Channels."""
        return self.axis.size


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
    return [group for group in groups.values() if len(group.places) > 1]
