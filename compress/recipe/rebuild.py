"""Build a pruned or split network again, from the module it was made of and a bundle's history."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from edgedl.compress.factorize.split_layers import split_layers
from edgedl.compress.graph.axes import Axis
from edgedl.compress.graph.cuts.channel_groups import channel_groups
from edgedl.compress.graph.cuts.cut import cut_channels
from edgedl.compress.graph.cuts.tensor_axes import TensorAxes
from edgedl.compress.graph.trace import export_graph
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.prune.find_blocks import remove_blocks
from edgedl.runtime.bundle.manifest import HistoryEntry
from edgedl.runtime.errors import BadInputError


def rebuild(
    module: nn.Module,
    example_inputs: tuple[Tensor, ...],
    history: Iterable[HistoryEntry],
    weights: Mapping[str, Tensor] | None = None,
) -> TracedNetwork:
    """Return a module with the channels, blocks and layers that a history left.

    Args:
        module: the architecture that was pruned or split, with any weights.
        example_inputs: one tensor [N, ...] per argument.
        history: of the bundle's manifest; stages that change no sizes are passed over.
        weights: of the bundle's network.safetensors; None leaves those of the module.

    Raises:
        BadInputError: the module is not the one that was pruned, or the weights are others.
        TraceError: it cannot be traced.
    """
    graph = export_graph(module, example_inputs)
    for entry in history:
        if entry.stage == "prune_channels":
            axes = TensorAxes(graph)
            by_name = {group.name: group.axis for group in channel_groups(axes)}
            kept = dict(_read(line, by_name) for line in _lines(entry, "kept"))
            graph = cut_channels(axes, kept)
        elif entry.stage == "prune_blocks":
            graph = remove_blocks(graph, _lines(entry, "removed"))
        elif entry.stage == "factorize":
            split_layers(graph, _read_ranks(entry))
    network = TracedNetwork(graph)
    if weights is not None:
        try:
            network.load_tensors(weights)
        except RuntimeError as error:
            raise BadInputError(f"the weights do not fit the history: {error}") from error
    return network


def _read_ranks(entry: HistoryEntry) -> dict[str, int]:
    """Return the rank of each weight that a stage has split."""
    lines = (line.partition("=") for line in _lines(entry, "ranks"))
    return {path: int(rank) for path, _, rank in lines}


def _lines(entry: HistoryEntry, key: str) -> tuple[str, ...]:
    written = entry.settings[key]
    return written if isinstance(written, tuple) else ()


def _read(line: str, groups: dict[str, Axis]) -> tuple[Axis, Tensor]:
    """Return a group's leaf and the channels that stay, from what the history holds."""
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
